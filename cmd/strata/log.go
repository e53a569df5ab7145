// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
	"github.com/urfave/cli/v3"
)

// setLog sends the log to stderr, as far as the flag asks for it.
func setLog(ctx context.Context, cmd *cli.Command) (context.Context, error) {
	if err := log.SetLevel(cmd.String(flagLogLevel)); err != nil {
		return ctx, usage(cmd, "--%s: %w", flagLogLevel, err)
	}
	log.L.Logger.SetOutput(cmd.Root().ErrWriter)
	log.L.Logger.SetFormatter(lines{})
	return ctx, nil
}

// lines is the log of a command: one that is read as it comes, beside its output.
type lines struct{}

// noise is logged by containerd's content store wherever a file system has no fs-verity,
// which nobody asked for, each time that a store is opened.
const noise = "failed check for fsverity support"

// Format implements logrus.Formatter.
func (lines) Format(e *logrus.Entry) ([]byte, error) {
	if e.Message == noise {
		return nil, nil
	}
	var b strings.Builder
	_, _ = fmt.Fprintf(&b, "%s: %s: %s", name, e.Level, printable(e.Message))
	keys := make([]string, 0, len(e.Data))
	for key := range e.Data {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		_, _ = fmt.Fprintf(&b, " %s=%q", key, fmt.Sprint(e.Data[key]))
	}
	return []byte(b.String() + "\n"), nil
}
