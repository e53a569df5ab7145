// SPDX-License-Identifier: Apache-2.0

package fsck_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/layerstore"
)

func yes(*fsck.Report) bool { return true }
func no(*fsck.Report) bool  { return false }

func codes(findings []fsck.Finding) []string {
	list := []string{}
	for _, f := range findings {
		list = append(list, string(f.Code))
	}
	slices.Sort(list)
	return list
}

func checkWith(t *testing.T, opts fsck.Options) *fsck.Report {
	t.Helper()
	r, err := fsck.Check(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func wantCodes(t *testing.T, what string, r *fsck.Report, want []string) {
	t.Helper()
	want = slices.Clone(want)
	slices.Sort(want)
	if got := codes(r.Findings); !slices.Equal(got, want) {
		t.Errorf("%s: found %q, want %q", what, got, want)
		for _, f := range r.Findings {
			t.Logf("%s %+v: %s", f.Code, f.Subject, f.Message)
		}
	}
}

// dump says what is in a root but for the lock file: metadata, content, names.
func dump(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() == "lock" {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		text := fmt.Sprintf("%o %d:%d %v", st.Mode, st.Uid, st.Gid, st.Mtim)
		if d.Type().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %x", sha256.Sum256(b))
		}
		all[path] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func sameDump(t *testing.T, before, after map[string]string) {
	t.Helper()
	for path, text := range before {
		if after[path] != text {
			t.Errorf("%s was %q and is %q", path, text, after[path])
		}
	}
	for path := range after {
		if _, ok := before[path]; !ok {
			t.Errorf("%s is new", path)
		}
	}
}

func TestSoundRootIsClean(t *testing.T) {
	f := newFixture(t)
	before := dump(t, f.root)
	r := checkWith(t, fsck.Options{Root: f.root, Usage: true, Data: true})
	wantCodes(t, "a sound root", r, nil)
	if r.ExitCode() != fsck.ExitClean {
		t.Errorf("exit code %d", r.ExitCode())
	}
	sameDump(t, before, dump(t, f.root))
}

func TestDamage(t *testing.T) {
	seen := map[string]bool{}
	for _, test := range damages() {
		for _, code := range test.want {
			seen[code] = true
		}
		t.Run(test.name, func(t *testing.T) { testDamage(t, test) })
	}
	t.Logf("%d ways, %d codes", len(damages()), len(seen))
	for _, code := range fsck.Codes() {
		if !seen[string(code)] {
			t.Errorf("nothing leads to %s", code)
		}
	}
}

func testDamage(t *testing.T, test damage) {
	t.Parallel()
	f := newFixture(t)
	test.do(f)
	before := dump(t, f.root)
	opts := fsck.Options{Root: f.root, Usage: !test.data, Data: test.data}
	r := checkWith(t, opts)
	wantCodes(t, "check", r, test.want)
	for _, finding := range r.Findings {
		if finding.Severity == "" || finding.Advice == "" || finding.Message == "" {
			t.Errorf("a finding says too little: %+v", finding)
		}
	}
	dry, err := fsck.Repair(ctx, opts, no)
	if err != nil {
		t.Fatal(err)
	}
	wantCodes(t, "dry run", dry, test.want)
	sameDump(t, before, dump(t, f.root))

	repaired, err := fsck.Repair(ctx, opts, yes)
	if err != nil {
		t.Fatal(err)
	}
	wantCodes(t, "repair", repaired, test.stays)
	if len(test.stays) == 0 && repaired.ExitCode() != fsck.ExitRepaired {
		t.Errorf("exit code %d", repaired.ExitCode())
	}
	wantCodes(t, "after the repair", checkWith(t, opts), test.stays)
	if test.after != nil {
		test.after(f, r)
	}
}

func TestRefuses(t *testing.T) {
	f := newFixture(t)
	if _, err := fsck.Check(ctx, fsck.Options{Root: f.root + "-none"}); !errdefs.IsNotFound(err) {
		t.Errorf("a root that does not exist: %v", err)
	}
	other := t.TempDir()
	if _, err := fsck.Check(ctx, fsck.Options{Root: other}); !errdefs.IsNotFound(err) {
		t.Errorf("another directory: %v", err)
	}
	if entries, err := os.ReadDir(other); err != nil || len(entries) != 0 {
		t.Errorf("something was made in a directory that is no root: %v, %v", entries, err)
	}
	store, err := layerstore.Open(layerstore.Config{Root: f.root})
	f.must(err)
	if _, err := fsck.Check(ctx, fsck.Options{Root: f.root}); !errdefs.IsUnavailable(err) {
		t.Errorf("a root in use: %v", err)
	}
	if _, err := fsck.Repair(ctx, fsck.Options{Root: f.root}, yes); !errdefs.IsUnavailable(err) {
		t.Errorf("repair of a root in use: %v", err)
	}
	f.must(store.Close())
}

func TestCodesAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/fsck.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range fsck.Codes() {
		if !strings.Contains(string(doc), "`"+string(code)+"`") {
			t.Errorf("docs/fsck.md does not say what %s is", code)
		}
	}
}
