// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/internal/faultfs"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/overlayutil"
)

// everyFault makes TestEveryWriteFails try all writes, which takes minutes, and not one
// in so many.
const everyFault = "STRATA_TEST_EVERY_FAULT"

// newFaultyDisk is a disk whose file system does what the test says.
func newFaultyDisk(t *testing.T) (*disk, *faultfs.FS) {
	t.Helper()
	testutil.RequireRoot(t)
	backing := testutil.Tmpfs(t)
	facts, err := overlayutil.CheckRoot(backing)
	if err != nil {
		t.Fatal(err)
	}
	faults := faultfs.New(t, backing)
	root := filepath.Join(faults.Dir(), "root")
	testutil.CheckNoMounts(t, root)
	d := &disk{t: t, l: layers{}}
	d.base = d.l.add(t, tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o700, Uid: 7, Gid: 7})
	d.desc = d.l.add(t, manyFiles(3)[1:]...) // without an entry for d: it gets a patch
	d.open(Config{Root: root, facts: &facts})
	t.Cleanup(func() { checkRoot(t, d.s, root) })
	d.l.unpack(t, d.s, "base", "", false, d.base)
	return d, faults
}

// classes that the errors of a failing disk have.
func hasClass(err error) bool {
	return errdefs.IsResourceExhausted(err) || errdefs.IsInternal(err) || errdefs.IsFailedPrecondition(err) || errdefs.IsUnavailable(err)
}

// Every write, sync, rename and so on fails, once or from then on, with each of the errors
// that disks have. The call says so, or it was of no importance; when the disk works again
// so does the store, with or without a restart, and what was committed is whole.
func TestEveryWriteFails(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EROFS, syscall.EDQUOT} {
		for _, lasting := range []bool{false, true} {
			t.Run(fmt.Sprint(errno, " lasting ", lasting), func(t *testing.T) {
				d, faults := newFaultyDisk(t)
				faults.Set(faultfs.Rule{Ops: faultfs.Changes})
				d.mustRun()
				n := faults.Count()
				if n < 50 {
					t.Fatalf("a round has only %d writes", n)
				}
				stride := 29
				if os.Getenv(everyFault) != "" {
					stride = 1
				}
				for first := 1 + int(errno)%stride; first <= n; first += stride {
					rule := faultfs.Rule{Ops: faultfs.Changes, First: first, Last: first, Errno: errno}
					if lasting {
						rule.Last = 0
					}
					d.fail(faults, rule)
				}
			})
		}
	}
}

func (d *disk) mustRun() {
	d.t.Helper()
	if failed, err := d.run("", nil); err != nil {
		d.t.Fatalf("%s: %v", failed, err)
	}
	if err := d.removeRound(); err != nil {
		d.t.Fatal(err)
	}
}

// fail does a round under a rule, and looks at what became of it.
func (d *disk) fail(faults *faultfs.FS, rule faultfs.Rule) {
	d.t.Helper()
	when := fmt.Sprintf("write %d to %d fails with %s", rule.First, rule.Last, rule.Errno)
	faults.Set(rule)
	failed, err := d.run("", nil)
	if err != nil && failed != "write" && !hasClass(err) {
		d.t.Errorf("%s, %s: the error has no class: %v", when, failed, err)
	}
	if rule.First%2 == 0 {
		faults.Set(faultfs.Rule{})
		d.reopen()
		checkStore(d.t, d.s)
	} else {
		_ = errors.Join(d.removeRound(), d.s.Cleanup(ctx)) // of a disk that may still fail
		faults.Set(faultfs.Rule{})
	}
	if err := errors.Join(d.removeRound(), d.s.Cleanup(ctx)); err != nil {
		d.t.Errorf("%s (%s: %v), afterwards: %v", when, failed, err, err)
	}
	checkStore(d.t, d.s)
	if again, err := d.run("", nil); err != nil {
		d.t.Errorf("%s (%s), and not any more: %s: %v", when, failed, again, err)
	}
	if err := d.removeRound(); err != nil {
		d.t.Error(err)
	}
	if d.t.Failed() {
		d.t.Fatalf("%s: %s %v", when, failed, err)
	}
}

func (d *disk) reopen() {
	d.t.Helper()
	cfg := d.s.cfg
	if err := d.s.Close(); err != nil {
		d.t.Error(err)
	}
	d.open(cfg)
}
