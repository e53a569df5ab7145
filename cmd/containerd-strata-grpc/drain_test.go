// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sync/errgroup"
)

// TestDrain stops the daemon in the middle of a List that can't go on: what
// it lists is far more than the flow control window of a stream, and the
// client has read the first message only.
func TestDrain(t *testing.T) {
	const count = 400
	at := newPlace(t)
	p := startDaemon(t, append(at.args(), "--log-level", "info")...)
	fill(t, proxyTo(t, at.address), count)

	stream, err := client(t, at.address).List(t.Context(), &snapshotsapi.ListSnapshotsRequest{Snapshotter: "strata"})
	must(t, err)
	first, err := stream.Recv()
	must(t, err)
	must(t, p.cmd.Process.Signal(syscall.SIGTERM))
	if state := p.state(t); state != "STOPPING=1" {
		t.Fatalf("the daemon reports %q", state)
	}
	got := len(first.Info)
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		got += len(resp.Info)
	}
	if got != count {
		t.Errorf("the call under way listed %d of %d snapshots", got, count)
	}
	must(t, p.wait())
}

// fill prepares snapshots that take about 4 KB each in a list.
func fill(t *testing.T, sn snapshots.Snapshotter, count int) {
	t.Helper()
	label := snapshots.WithLabels(map[string]string{"containerd.io/snapshot/filler": strings.Repeat("x", 4000)})
	var group errgroup.Group
	group.SetLimit(16)
	for i := range count {
		group.Go(func() error {
			_, err := sn.Prepare(t.Context(), fmt.Sprintf("key-%d", i), "", label)
			return err
		})
	}
	must(t, group.Wait())
}
