// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/strata-snapshotter/strata/imagestore"
	"github.com/strata-snapshotter/strata/internal/testutil/testregistry"
)

// Of two processes on one root the second waits, and says so, or ends with its own code.
func TestTwoProcesses(t *testing.T) {
	reg := testregistry.Start(t)
	ref := reg.Push(t, "big:1", bigImage(t, 2, 2<<20))
	r := newImageRoot(t)
	reg.Fail(testregistry.Faults{Delay: 20 * time.Millisecond})
	first := r.process("pull", "--json", ref)
	out, err := first.StdoutPipe()
	noError(t, err)
	noError(t, first.Start())
	t.Cleanup(func() { _ = first.Wait() })
	_, err = out.Read(make([]byte, 1)) // its first step: it has the root
	noError(t, err)
	go func() { _, _ = io.Copy(io.Discard, out) }()

	_, stderr, code := r.run("--wait", "1ms", "images")
	if code != exitUnavailable || !strings.Contains(stderr, "process ") {
		t.Errorf("a second process ends with %d and %q", code, stderr)
	}
	_, stderr, code = r.run("--wait", "1m", "pull", "-q", ref)
	if code != exitOK || !strings.Contains(stderr, "waiting: ") {
		t.Errorf("a second process that waits ends with %d and %q", code, stderr)
	}
	if n := len(reg.Blobs()); n != 3 {
		t.Errorf("%d blobs were fetched by both, want 3", n)
	}
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
			readUntil(t, out, `"step":"download"`, 5)
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

// readUntil reads until text was there so often.
func readUntil(t *testing.T, r io.Reader, text string, times int) {
	t.Helper()
	var seen strings.Builder
	buf := make([]byte, 4096)
	for strings.Count(seen.String(), text) < times {
		n, err := r.Read(buf)
		noError(t, err)
		seen.Write(buf[:n])
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
