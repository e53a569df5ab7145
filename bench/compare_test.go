// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// A benchmark that sees no difference proves nothing: each kind of one is made here.
func TestDifferences(t *testing.T) {
	for name, change := range map[string]func(dir string) error{
		"none":            func(string) error { return nil },
		"content":         func(dir string) error { return replace(dir, "d/file", "other") },
		"mode":            func(dir string) error { return os.Chmod(filepath.Join(dir, "d/file"), 0o600) },
		"missing":         func(dir string) error { return os.Remove(filepath.Join(dir, "link")) },
		"more":            func(dir string) error { return os.Mkdir(filepath.Join(dir, "more"), 0o755) },
		"time":            func(dir string) error { return touch(filepath.Join(dir, "d/file"), 1) },
		"time of a dir":   func(dir string) error { return touch(filepath.Join(dir, "d"), 1) },
		"time of the top": func(dir string) error { return touch(dir, 1) },
		"hard link":       unlink,
	} {
		t.Run(name, func(t *testing.T) {
			theirs, ours := makeTree(t, func(string) error { return nil }), makeTree(t, change)
			unknown, known := differences(theirs, ours, map[string]bool{"/": true})
			if want := name != "none" && name != "time of the top"; (len(unknown) == 1) != want {
				t.Errorf("differences: %q", unknown)
			}
			if want := name == "time of the top"; (len(known) == 1) != want {
				t.Errorf("known differences: %q", known)
			}
		})
	}
}

// containerd's whiteouts show where nothing is merged, and Strata's must not.
func TestGhosts(t *testing.T) {
	none, with := map[string]entry{}, map[string]entry{"/gone": ghost}
	for name, test := range map[string]struct {
		theirs, ours   map[string]entry
		unknown, known int
	}{
		"containerd's": {with, none, 0, 1},
		"Strata's":     {none, with, 1, 0},
		"both's":       {with, with, 1, 0},
	} {
		unknown, known := differences(test.theirs, test.ours, nil)
		if len(unknown) != test.unknown || len(known) != test.known {
			t.Errorf("%s: unknown %q, known %q", name, unknown, known)
		}
	}
}

func makeTree(t *testing.T, change func(dir string) error) map[string]entry {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
	must(t, replace(dir, "d/file", "content"))
	must(t, replace(dir, "d/one", "linked"))
	must(t, os.Link(filepath.Join(dir, "d/one"), filepath.Join(dir, "d/two")))
	must(t, os.Symlink("d/file", filepath.Join(dir, "link")))
	now := time.Now()
	must(t, change(dir))
	// What changes made of times is not what is tested, but where they set one.
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		if info, err := d.Info(); err != nil || info.ModTime().Before(now.Add(-time.Hour)) {
			return err
		}
		return touch(path, 1000)
	}))
	entries, err := scan(t.Context(), dir)
	must(t, err)
	if e, ok := entries["/link"]; ok {
		e.meta = "" // a symbolic link's time can't be set with os
		entries["/link"] = e
	}
	return entries
}

func replace(dir, name, content string) error {
	return os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644)
}

func touch(path string, seconds int64) error {
	return os.Chtimes(path, time.Unix(seconds, 0), time.Unix(seconds, 0))
}

func unlink(dir string) error {
	if err := os.Remove(filepath.Join(dir, "d/two")); err != nil {
		return err
	}
	return replace(dir, "d/two", "linked")
}

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   spread
	}{
		{nil, spread{}},
		{[]float64{2}, spread{2, 2, 2}},
		{[]float64{3, 1, 2}, spread{1, 2, 3}},
		{[]float64{4, 1, 2, 3}, spread{1, 2.5, 4}},
	} {
		if got := spreadOf(test.values); got != test.want {
			t.Errorf("%v: %v, want %v", test.values, got, test.want)
		}
	}
}

func TestMeters(t *testing.T) {
	must(t, resetPeak(os.Getpid()))
	peak, err := memory(os.Getpid(), "VmHWM")
	must(t, err)
	cpu, err := cpuTime(os.Getpid())
	must(t, err)
	if peak <= 0 || cpu < 0 {
		t.Errorf("peak %d, CPU %v", peak, cpu)
	}
}

func TestGoals(t *testing.T) {
	var names []string
	for _, r := range rows {
		for _, m := range modes {
			for _, format := range []string{"gz", "zst"} {
				if _, measured := r.goal(m, format); measured {
					names = append(names, r.name+"/"+format+"/"+m.name)
				}
			}
		}
	}
	if len(names) != 4*len(rows)+1 || !slices.Contains(names, "whole-seq/gz/asis") {
		t.Errorf("%d: %v", len(names), names)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
