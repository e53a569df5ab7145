// SPDX-License-Identifier: Apache-2.0

package fsck_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/strata-snapshotter/strata/fsck"
)

// Leftovers go, and damage stays as it is.
func TestPrune(t *testing.T) {
	f := newFixture(t)
	f.must(os.MkdirAll(f.at("layers", 900, "fs", "d"), 0o700), os.Mkdir(f.at("staging", 901), 0o700), os.MkdirAll(f.at("trash", 902, "d"), 0o700))
	f.must(os.RemoveAll(f.at("layers", f.top)))
	opts := fsck.Options{Root: f.root}
	asked := 0
	dry, err := fsck.Prune(ctx, opts, func(*fsck.Report) bool { asked++; return false })
	f.must(err)
	if asked != 1 || len(dry.Findings) != 3 || len(dry.Repaired) != 0 {
		t.Errorf("asked %d times: %+v", asked, dry)
	}
	if _, err := os.Stat(f.at("layers", 900)); err != nil {
		t.Errorf("a dry run did something: %v", err)
	}
	done, err := fsck.Prune(ctx, opts, func(*fsck.Report) bool { return true })
	f.must(err)
	if len(done.Findings) != 0 || len(done.Repaired) != 3 {
		t.Errorf("%+v", done)
	}
	for _, base := range []string{"staging", "trash"} {
		if left, err := filepath.Glob(filepath.Join(f.root, base, "*")); err != nil || len(left) != 0 {
			t.Errorf("%v is left in %s (%v)", left, base, err)
		}
	}
	report, err := fsck.Check(ctx, opts)
	f.must(err)
	if report.Worst() != fsck.Damage {
		t.Errorf("the damage is gone: %+v", report)
	}
	for _, finding := range report.Findings {
		if finding.Severity == fsck.Leftover {
			t.Errorf("%+v", finding)
		}
	}
}
