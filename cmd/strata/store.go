// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/imagestore"
)

// registryEnv names the registry of references that name none.
const registryEnv = "OCI_REGISTRY_DOMAIN"

// openStore opens the image store that the global flags name. It says so when it has to
// wait for another process.
func openStore(ctx context.Context, cmd *cli.Command) (*imagestore.Store, error) {
	root, err := filepath.Abs(cmd.String(flagRoot))
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flagRoot, err)
	}
	options, err := snapshotterOptions(cmd)
	if err != nil {
		return nil, err
	}
	options.MountProgram = cmd.String(flagProgram)
	if err := options.Validate(); err != nil {
		return nil, usage(cmd, "%w", err)
	}
	return imagestore.Open(ctx, imagestore.Options{
		Root:        root,
		Snapshotter: options,
		Group:       cmd.String(flagGroup),
		Registry:    os.Getenv(registryEnv),
		Wait:        cmd.Duration(flagWait),
		Waiting: func(message string) {
			_, _ = fmt.Fprintf(cmd.Root().ErrWriter, "%s: waiting: %s\n", name, message)
		},
	})
}

// withStore runs do with the image store open. do's context has the store's namespace.
func withStore(ctx context.Context, cmd *cli.Command, do func(ctx context.Context, s *imagestore.Store) error) (err error) {
	s, err := openStore(ctx, cmd)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return do(s.Context(ctx), s)
}
