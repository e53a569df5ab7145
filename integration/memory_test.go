// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/diff"
	diffproxy "github.com/containerd/containerd/v2/core/diff/proxy"
	"github.com/containerd/containerd/v2/core/snapshots"
	snapshotsproxy "github.com/containerd/containerd/v2/core/snapshots/proxy"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/strata-snapshotter/strata/internal/testutil"
)

// What applying layers may take of a node, whatever the layers (docs/config.md,
// "Memory"): resident bytes over those of the idle daemon, and open files.
const (
	mostForOne  = 32 << 20
	mostForFour = 96 << 20
	mostFiles   = 1024
)

// TestMemoryAndDescriptors applies large layers of many entries, two one after the
// other and four at a time, with a daemon that has done nothing before: the most
// that it took is looked at, not what it has now.
func TestMemoryAndDescriptors(t *testing.T) {
	needStrata(t)
	n := newNode(t, settings{})
	program := filepath.Join(t.TempDir(), "containerd-strata-grpc")
	// Without the race detector, which takes a multiple.
	if err := goBuild(program, "../cmd/containerd-strata-grpc"); err != nil {
		t.Fatalf("building the daemon: %v", err)
	}
	for _, format := range []string{"gzip", "zstd"} {
		layers := n.writeLargeLayers(format, 4)
		for at, most := range map[int]int64{1: mostForOne, 4: mostForFour} {
			t.Run(fmt.Sprintf("%d %s", at, format), func(t *testing.T) {
				d := startLean(t, n, program)
				peak, files := d.watch(func() {
					var group errgroup.Group
					group.SetLimit(at)
					for i, l := range layers[:max(at, 2)] {
						group.Go(func() error { return d.apply(strconv.Itoa(i), l) })
					}
					if err := group.Wait(); err != nil {
						t.Error(err)
					}
				})
				t.Logf("%.1f MiB over idle, %d files open", float64(peak)/(1<<20), files)
				if peak > most {
					t.Errorf("%d MiB over idle, the limit is %d", peak>>20, most>>20)
				}
				if files > mostFiles {
					t.Errorf("%d files were open, the limit is %d", files, mostFiles)
				}
			})
		}
	}
}

// lean is a daemon of its own, with the node's containerd for blobs.
type lean struct {
	t       *testing.T
	node    *node
	process *process
	applier diff.Applier
	service snapshots.Snapshotter
}

func startLean(t *testing.T, n *node, program string) *lean {
	t.Helper()
	dir := testutil.Tmpfs(t) // the disk is not what this is about
	config := writeFile(t, filepath.Join(dir, "c.toml"), "[snapshotter]\ndurability = 'none'\n")
	socket := filepath.Join(dir, "s.sock")
	d := &lean{t: t, node: n, process: startProcess(t, dir, env.bin, program, "--config", config,
		"--root", filepath.Join(dir, "root"), "--address", socket, "--containerd-address", n.address())}
	t.Cleanup(func() { d.process.stop(t) })
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // nothing depends on it
	d.applier = diffproxy.NewDiffApplier(diffapi.NewDiffClient(conn)).(diff.Applier)
	d.service = snapshotsproxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), "strata")
	eventually(t, "the daemon answers", func() error {
		if !d.process.running() {
			t.Fatal("the daemon ended at its start")
		}
		_, err := d.service.Prepare(n.ctx(), "first", "")
		return err
	})
	return d
}

// apply unpacks the layer into a snapshot of its own.
func (d *lean) apply(key string, l aLayer) error {
	ctx := d.node.ctx()
	ref := snapshots.WithLabels(map[string]string{"containerd.io/snapshot.ref": key})
	mounts, err := d.service.Prepare(ctx, "extract-"+key, "", ref)
	if err != nil {
		return err
	}
	got, err := d.applier.Apply(ctx, l.desc, mounts)
	if err != nil {
		return err
	}
	if got.Digest != l.diffID {
		return fmt.Errorf("got the diffID %s, not %s", got.Digest, l.diffID)
	}
	return d.service.Commit(ctx, key, "extract-"+key)
}

// watch runs do and returns the most resident bytes over those before, and the
// most open files, which are counted again and again.
func (d *lean) watch(do func()) (peak int64, files int) {
	d.t.Helper()
	idle := d.memory("VmRSS")
	// From now on VmHWM is the most since now, see proc_pid_clear_refs(5).
	if err := os.WriteFile(d.proc("clear_refs"), []byte("5"), 0); err != nil {
		d.t.Fatal(err)
	}
	stop, counted := make(chan struct{}), make(chan int)
	go func() {
		most := 0
		for {
			select {
			case <-stop:
				counted <- most
				return
			case <-time.After(time.Millisecond):
				open, _ := os.ReadDir(d.proc("fd")) // the daemon's end is seen elsewhere
				most = max(most, len(open))
			}
		}
	}()
	do()
	close(stop)
	return d.memory("VmHWM") - idle, <-counted
}

func (d *lean) proc(file string) string {
	return fmt.Sprintf("/proc/%d/%s", d.process.cmd.Process.Pid, file)
}

// memory is a field of /proc/PID/status in bytes.
func (d *lean) memory(field string) int64 {
	d.t.Helper()
	text, err := os.ReadFile(d.proc("status"))
	if err != nil {
		d.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == field+":" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				d.t.Fatal(err)
			}
			return kib << 10
		}
	}
	d.t.Fatalf("the daemon has no %s", field)
	return 0
}
