// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v3"
	"golang.org/x/term"

	"github.com/strata-snapshotter/strata/imagestore"
)

// jsonInterval is how often --json says how far a layer is, at the most.
const jsonInterval = 200 * time.Millisecond

// reporter shows how a pull or load goes on.
type reporter interface {
	// event is called by several goroutines.
	event(imagestore.Event)
	// end comes last, whether the work succeeded or not.
	end()
}

// progressFlags are of commands that bring images in.
func progressFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: flagQuiet, Aliases: []string{"q"}, Usage: "print nothing but what came of it"},
		&cli.BoolFlag{Name: flagJSON, Usage: "print each step as a line of JSON"},
	}
}

// newReporter is the reporter that the flags ask for: bars on a terminal, lines elsewhere,
// both on stderr; stdout is for results, and for the steps of --json.
func newReporter(cmd *cli.Command) (reporter, error) {
	stderr := cmd.Root().ErrWriter
	switch {
	case cmd.Bool(flagJSON) && cmd.Bool(flagQuiet):
		return nil, usage(cmd, "--%s and --%s exclude each other", flagJSON, flagQuiet)
	case cmd.Bool(flagJSON):
		return &jsonLines{w: json.NewEncoder(cmd.Root().Writer), last: map[int]time.Time{}}, nil
	case cmd.Bool(flagQuiet):
		return silent{}, nil
	}
	if f, ok := stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		return newBars(f), nil
	}
	return &textLines{w: stderr}, nil
}

// printResult prints what came of it, unless the steps said so.
func printResult(cmd *cli.Command, image imagestore.Image) error {
	if cmd.Bool(flagJSON) {
		return nil
	}
	_, err := fmt.Fprintf(cmd.Root().Writer, "%s@%s\n", withoutDigest(image.Name), image.Target.Digest)
	return err
}

type silent struct{}

func (silent) event(imagestore.Event) {}
func (silent) end()                   {}

// jsonLines writes events as they are, but not each of those of one layer.
type jsonLines struct {
	mu   sync.Mutex
	w    *json.Encoder
	last map[int]time.Time // by layer
}

func (j *jsonLines) event(e imagestore.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	running := e.Step == imagestore.StepDownload || e.Step == imagestore.StepUnpack
	if running && e.Done < e.Total && time.Since(j.last[e.Index]) < jsonInterval {
		return
	}
	j.last[e.Index] = time.Now()
	_ = j.w.Encode(e) // whoever stopped reading will not miss it
}

func (j *jsonLines) end() {}

// textLines writes a line when something is done.
type textLines struct {
	mu sync.Mutex
	w  io.Writer
	of int // layers
}

func (t *textLines) event(e imagestore.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	image := printable(e.Image)
	switch e.Step {
	case imagestore.StepResolving:
		t.line("%s: asking the registry", image)
	case imagestore.StepReading:
		t.line("%s: reading", image)
	case imagestore.StepComplete:
		t.line("%s: is here", image)
	case imagestore.StepUnpacking:
		t.of = len(e.Layers)
		t.line("%s: %d layers, %s", image, t.of, size(e.Total))
	case imagestore.StepExists:
		t.line("layer %d/%d %s: is here", e.Index, t.of, short(e.Digest))
	case imagestore.StepDownload:
		if e.Done == e.Total {
			t.line("layer %d/%d %s: fetched, %s", e.Index, t.of, short(e.Digest), size(e.Total))
		}
	case imagestore.StepLayerDone:
		t.line("layer %d/%d %s: unpacked", e.Index, t.of, short(e.Digest))
	}
}

func (t *textLines) line(format string, args ...any) {
	_, _ = fmt.Fprintf(t.w, format+"\n", args...)
}

func (t *textLines) end() {}

// short is as much of a digest as tells the layers of an image apart.
func short(d digest.Digest) string {
	const length = 12
	if err := d.Validate(); err != nil {
		return printable(d.String())
	}
	return d.Encoded()[:length]
}

func size(bytes int64) string { return units.HumanSize(float64(bytes)) }
