// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/strata-snapshotter/strata/imagestore"
	"github.com/strata-snapshotter/strata/internal/testutil/testregistry"
)

// Of two processes on one root the second ends with a code of its own, or says that it
// waits, and then finds what the first has done.
func TestTwoProcesses(t *testing.T) {
	reg := testregistry.Start(t)
	ref := reg.Push(t, "big:1", bigImage(t, 2, 100_000))
	r := newImageRoot(t)
	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	t.Cleanup(release)
	reg.Fail(testregistry.Faults{Hold: hold})
	first := r.process("pull", "--json", ref)
	out, err := first.StdoutPipe()
	noError(t, err)
	noError(t, first.Start())
	_, err = out.Read(make([]byte, 1)) // its first step: it has the root
	noError(t, err)

	_, stderr, code := r.run("--wait", "1ms", "images")
	if code != exitUnavailable || !strings.Contains(stderr, "process ") {
		t.Errorf("a second process ends with %d and %q", code, stderr)
	}
	said := &notice{text: "waiting: ", then: release}
	code = run(r.args([]string{"--wait", "1h", "pull", "-q", ref}), nil, io.Discard, said)
	if code != exitOK || !said.seen {
		t.Errorf("a second process that waits ends with %d, and said so: %v", code, said.seen)
	}
	_, _ = io.Copy(io.Discard, out)
	noError(t, first.Wait())
	if n := len(reg.Blobs()); n != 3 {
		t.Errorf("%d blobs were fetched by both, want 3", n)
	}
}

// notice does something when a text is written.
type notice struct {
	text string
	then func()
	seen bool
}

func (n *notice) Write(p []byte) (int, error) {
	if strings.Contains(string(p), n.text) {
		n.seen = true
		n.then()
	}
	return len(p), nil
}

// Ctrl-C ends a pull in order, and the next one goes on. So it is after a kill.
func TestPullSignals(t *testing.T) {
	for name, c := range map[string]struct {
		signal os.Signal
		code   int
	}{
		"interrupt": {syscall.SIGINT, exitInterrupted},
		"kill":      {syscall.SIGKILL, -1},
	} {
		t.Run(name, func(t *testing.T) {
			reg := testregistry.Start(t)
			ref := reg.Push(t, "big:1", bigImage(t, 2, 4<<20))
			r := newImageRoot(t)
			reg.Fail(testregistry.Faults{Delay: 10 * time.Millisecond})
			p := r.process("pull", "--json", ref)
			var stderr bytes.Buffer
			p.Stderr = &stderr
			out, err := p.StdoutPipe()
			noError(t, err)
			noError(t, p.Start())
			waitForDownload(t, out, 2<<20) // the content store writes 1 MiB at once
			noError(t, p.Process.Signal(c.signal))
			_, _ = io.Copy(io.Discard, out)
			_ = p.Wait() // it failed, that is what is tested
			if code := p.ProcessState.ExitCode(); code != c.code {
				t.Errorf("the pull ends with %d and %q, want %d", code, stderr.String(), c.code)
			}
			reg.Fail(testregistry.Faults{})
			reg.Requests()
			r.works("pull", "-q", ref)
			ranges := 0
			for _, b := range reg.Blobs() {
				if b.Range != "" {
					ranges++
				}
			}
			if ranges == 0 {
				t.Error("no download went on where it ended")
			}
			checkNoExtractions(t, r)
		})
	}
}

// waitForDownload reads steps until so many bytes of a layer are there.
func waitForDownload(t *testing.T, r io.Reader, bytes int64) {
	t.Helper()
	steps := json.NewDecoder(r)
	for {
		var e imagestore.Event
		noError(t, steps.Decode(&e))
		if e.Step == imagestore.StepDownload && e.Done >= bytes {
			return
		}
	}
}

func checkNoExtractions(t *testing.T, r imageRoot) {
	t.Helper()
	s, err := imagestore.Open(context.Background(), imagestore.Options{Root: r.dir})
	noError(t, err)
	entries, err := os.ReadDir(s.StorePath() + "/snapshots")
	noError(t, err)
	for _, e := range entries {
		t.Errorf("left: snapshots/%s", e.Name())
	}
	noError(t, s.Close())
}
