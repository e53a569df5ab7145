// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// smallDisks are file systems that are full soon.
var smallDisks = map[string]struct {
	sizeMB int
	args   []string
}{
	"ext4": {64, []string{"-q", "-m", "0", "-b", "4096"}},
	"xfs":  {300, []string{"-q"}},
}

// disk is a root on a file system of its own, and what the test does there.
type disk struct {
	t       *testing.T
	s       *Snapshotter
	l       layers
	desc    ocispec.Descriptor // what is applied
	base    ocispec.Descriptor
	round   int
	ballast *testutil.Ballast
}

func newDisk(t *testing.T, fstype string, mkfs ...string) *disk {
	t.Helper()
	testutil.RequireRoot(t)
	small := smallDisks[fstype]
	dir := testutil.LoopFSInMemory(t, fstype, small.sizeMB, append(small.args, mkfs...)...)
	d := &disk{t: t, l: layers{}, ballast: testutil.NewBallast(t, dir)}
	d.base = d.l.add(t, tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o700, Uid: 7, Gid: 7})
	d.desc = d.l.add(t, manyFiles(40)...)
	root := filepath.Join(dir, "root")
	testutil.CheckNoMounts(t, root)
	d.open(Config{Root: root})
	t.Cleanup(func() { checkRoot(t, d.s, root) })
	d.l.unpack(t, d.s, "base", "", false, d.base)
	return d
}

func (d *disk) open(cfg Config) {
	d.t.Helper()
	s, err := New(ctx, cfg)
	if err != nil {
		d.t.Fatal(err)
	}
	s.UseUnpacker(d.l)
	d.s = s
}

// checkRoot closes a snapshotter, after a Cleanup, and has its root looked over.
func checkRoot(t *testing.T, s *Snapshotter, root string) {
	t.Helper()
	if err := s.Cleanup(ctx); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	report, err := fsck.Check(ctx, fsck.Options{Root: root, Usage: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Findings {
		if f.Severity != fsck.Hint {
			t.Errorf("fsck: %s %+v: %s", f.Code, f.Subject, f.Message)
		}
	}
}

// round is one image and one container, step by step. A step that fails has an error of
// one of the classes that may be; what is left is removed.
type part struct {
	name string
	do   func() error
}

func (d *disk) steps() []part {
	d.round++
	id := func(what string) string { return fmt.Sprintf("default/%d/%s", d.round, what) }
	var m []mount.Mount
	return []part{
		{"prepare", func() (err error) { m, err = d.s.Prepare(ctx, id("extract-1"), "base"); return err }},
		{"apply", func() error { return applyTo(ctx, d.s, m, d.desc, d.l) }},
		{"commit", func() error { return d.s.Commit(ctx, id("image"), id("extract-1")) }},
		{"container", func() error { _, err := d.s.Prepare(ctx, id("container"), id("image")); return err }},
		{"write", func() error { return d.writeInto(id("container")) }},
		{"commit container", func() error { return d.s.Commit(ctx, id("committed"), id("container")) }},
		{"view", func() error { _, err := d.s.View(ctx, id("view"), id("committed")); return err }},
		{"update", func() error {
			_, err := d.s.Update(ctx, snapshots.Info{Name: id("view"), Labels: map[string]string{"a": "b"}}, "labels.a")
			return err
		}},
	}
}

func (d *disk) writeInto(key string) error {
	sn, err := d.s.get(key)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(d.s.store.UpperPath(sn.Number), "f"), bytes.Repeat([]byte("f"), 10_000), 0o644)
}

// removeRound removes what the last round made, in an order that works.
func (d *disk) removeRound() error {
	var errs []error
	for _, what := range []string{"view", "committed", "container", "image", "extract-1"} {
		if err := d.s.Remove(ctx, fmt.Sprintf("default/%d/%s", d.round, what)); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("remove %s: %w", what, err))
		}
	}
	return errors.Join(errs...)
}

// applyTo is what the differ does, and returns also how letting go went.
func applyTo(ctx context.Context, s *Snapshotter, m []mount.Mount, desc ocispec.Descriptor, l layers) (err error) {
	stage, err := s.Stage(ctx, m, desc)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stage.Release()) }()
	if _, adopted, err := stage.Adopt(ctx); adopted || err != nil {
		return err
	}
	result, err := archive.Apply(ctx, archive.FromReader(bytes.NewReader(l[desc.Digest])), stage.Dir(), stage.Options())
	if err != nil {
		return err
	}
	return stage.Seal(ctx, desc, result)
}

// run does a round, with something before one of its steps, and says which step failed
// first, and how.
func (d *disk) run(before string, do func()) (failed string, err error) {
	for _, part := range d.steps() {
		if part.name == before {
			do()
		}
		if err := part.do(); err != nil {
			return part.name, err
		}
	}
	return "", nil
}

// leaves are how much space is left at a time, in bytes.
var leaves = []int64{0, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 1 << 20}

// A disk that is full at any moment: the call says so, nothing is left half done, what is
// there can be removed to make room, and with room everything works again.
func TestDiskFullAtEveryStage(t *testing.T) {
	for fstype := range smallDisks {
		t.Run(fstype, func(t *testing.T) {
			d := newDisk(t, fstype)
			for _, stage := range []string{"prepare", "apply", "commit", "container", "commit container", "view"} {
				for _, free := range leaves {
					failed, err := d.run(stage, func() { d.ballast.Leave(free) })
					if err != nil && !errdefs.IsResourceExhausted(err) && failed != "write" {
						t.Errorf("%d bytes are left before %s, %s fails: %v", free, stage, failed, err)
					}
					t.Logf("%d bytes before %s: %s %v", free, stage, failed, err)
					d.isInOrder(fmt.Sprintf("%d bytes are left before %s", free, stage))
				}
			}
		})
	}
}

// isInOrder removes the round while the disk is still full, and does one with room.
func (d *disk) isInOrder(when string) {
	d.t.Helper()
	checkStore(d.t, d.s)
	if err := errors.Join(d.removeRound(), d.s.Cleanup(ctx)); err != nil {
		d.t.Errorf("%s, then: %v", when, err)
	}
	d.ballast.Drop()
	if err := errors.Join(d.removeRound(), d.s.Cleanup(ctx)); err != nil {
		d.t.Errorf("%s, and is not any more: %v", when, err)
	}
	checkStore(d.t, d.s)
	if failed, err := d.run("", nil); err != nil {
		d.t.Errorf("%s, and is not any more: %s: %v", when, failed, err)
	}
	checkStore(d.t, d.s)
	if err := d.removeRound(); err != nil {
		d.t.Error(err)
	}
	if d.t.Failed() {
		d.t.FailNow()
	}
}

// Inodes run out as well as bytes.
func TestInodesRunOutAtEveryStage(t *testing.T) {
	d := newDisk(t, "ext4", "-N", "200")
	for _, stage := range []string{"prepare", "apply", "commit", "container", "commit container", "view"} {
		for _, free := range []uint64{0, 1, 2, 3, 4, 8, 30, 45} {
			failed, err := d.run(stage, func() { d.ballast.LeaveInodes(free) })
			if err != nil && !errdefs.IsResourceExhausted(err) && failed != "write" {
				t.Errorf("%d inodes are left before %s, %s fails: %v", free, stage, failed, err)
			}
			d.isInOrder(fmt.Sprintf("%d inodes are left before %s", free, stage))
		}
	}
}

// On a disk without a byte left, whatever there is can be removed: that is how room is
// made. metadata.db has to have it for the transactions.
func TestRemovalNeedsNoRoom(t *testing.T) {
	for fstype := range smallDisks {
		for _, many := range []int{3, 30, 100} {
			t.Run(fmt.Sprint(fstype, " ", many), func(t *testing.T) {
				d := newDisk(t, fstype)
				for i := range many {
					prepare(t, d.s, fmt.Sprint("k", i), "base", labels("l", fmt.Sprintf("%0*d", 3000, i)))
				}
				d.ballast.Leave(0)
				for i := range many {
					if err := d.s.Remove(ctx, fmt.Sprint("k", i)); err != nil {
						t.Fatalf("after %d: %v", i, err)
					}
				}
				if err := d.s.Cleanup(ctx); err != nil {
					t.Error(err)
				}
				d.ballast.Drop()
				checkStore(t, d.s)
			})
		}
	}
}

// A file system that finds an error in itself becomes read-only, under a running daemon:
// calls that write say so, the others go on, and after a repair and a restart nothing of
// what was committed is missing.
func TestFileSystemBecomesReadOnly(t *testing.T) {
	for _, stage := range []string{"prepare", "apply", "commit", "container", "commit container", "view", "update"} {
		t.Run(stage, func(t *testing.T) {
			d := newDisk(t, "ext4")
			dir := filepath.Dir(d.s.cfg.Root)
			if failed, err := d.run("", nil); err != nil {
				t.Fatal(failed, err)
			}
			old := fmt.Sprintf("default/%d/", d.round)
			failed, err := d.run(stage, func() { testutil.BreakFS(t, dir) })
			if !errdefs.IsFailedPrecondition(err) && !errdefs.IsInternal(err) {
				t.Errorf("%s: %v", failed, err)
			}
			if _, err := d.s.Stat(ctx, old+"image"); err != nil {
				t.Error(err)
			}
			if _, err := d.s.Mounts(ctx, old+"view"); err != nil {
				t.Error(err)
			}
			if err := d.s.Remove(ctx, old+"view"); err == nil {
				t.Error("a removal that can't be written succeeded")
			}
			if err := d.s.Close(); err != nil {
				t.Logf("close: %v", err)
			}
			testutil.RepairFS(t, dir)
			d.open(d.s.cfg)
			for _, what := range []string{"image", "committed", "view"} {
				if _, err := d.s.Stat(ctx, old+what); err != nil {
					t.Errorf("lost: %v", err)
				}
			}
			if err := d.removeRound(); err != nil { // an extraction may have lost its directory
				t.Error(err)
			}
			d.mustRun()
			for _, key := range []string{"view", "committed", "image"} {
				mustRemove(t, d.s, old+key)
			}
		})
	}
}
