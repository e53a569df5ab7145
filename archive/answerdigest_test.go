// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// answerOf asks directories below, which change makes of a/b, what a layer with a file in
// a/b needs to know.
func answerOf(t *testing.T, change func(below string) error) digest.Digest {
	t.Helper()
	tmp := t.TempDir()
	at := func(elem ...string) string { return filepath.Join(append([]string{tmp}, elem...)...) }
	stamp := time.Unix(1234567890, 123456789)
	for _, dir := range []string{at("below/a/b"), at("layer/a/b"), at("patch")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{at("below/a/b"), at("below/a")} {
		if err := os.Chtimes(dir, stamp, stamp); err != nil {
			t.Fatal(err)
		}
	}
	if err := change(at("below")); err != nil {
		t.Fatal(err)
	}
	var answer digest.Digest
	err := withDirs([]string{at("below"), at("layer"), at("patch")}, func(dirs []*os.File) (err error) {
		needs := archive.Needs{Dirs: []string{"a", "a/b"}}
		_, answer, err = archive.Answer(context.Background(), needs, archive.Below{Merged: dirs[0], Layer: dirs[1], Patch: dirs[2]}, archive.Options{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// Two answers have one digest if, and only if, a chain shows the same with either patch.
func TestAnswersDigest(t *testing.T) {
	testutil.RequireRoot(t)
	nothing := func(string) error { return nil }
	first := answerOf(t, nothing)
	if first.Validate() != nil {
		t.Fatalf("the digest is %q", first)
	}
	for name, change := range map[string]func(string) error{
		"nothing":          nothing,
		"when it was made": func(string) error { time.Sleep(20 * time.Millisecond); return nil }, // the time of the patch's root
		"what is in it": func(b string) error {
			return keepTime(b+"/a/b", func() error { return os.WriteFile(b+"/a/b/f", nil, 0o644) })
		},
		"what is not asked of": func(b string) error { return os.Mkdir(b+"/c", 0o711) },
	} {
		if got := answerOf(t, change); got != first {
			t.Errorf("%s: another digest for the same", name)
		}
	}
	seen := map[digest.Digest]string{first: "nothing"}
	for name, change := range map[string]func(string) error{
		"mode":             func(b string) error { return os.Chmod(b+"/a/b", 0o711) },
		"set-group-ID":     func(b string) error { return os.Chmod(b+"/a/b", 0o755|os.ModeSetgid) },
		"mode of the way":  func(b string) error { return os.Chmod(b+"/a", 0o711) },
		"owner":            func(b string) error { return os.Chown(b+"/a/b", 1, 0) },
		"group":            func(b string) error { return os.Chown(b+"/a/b", 0, 1) },
		"second":           func(b string) error { return setTime(b+"/a/b", 1234567891, 123456789) },
		"nanosecond":       func(b string) error { return setTime(b+"/a/b", 1234567890, 123456790) },
		"attribute":        func(b string) error { return unix.Lsetxattr(b+"/a/b", "user.x", []byte("y"), 0) },
		"its value":        func(b string) error { return unix.Lsetxattr(b+"/a/b", "user.x", []byte("z"), 0) },
		"its name":         func(b string) error { return unix.Lsetxattr(b+"/a/b", "user.xy", nil, 0) },
		"of the host's":    func(b string) error { return unix.Lsetxattr(b+"/a/b", "security.strata", []byte("y"), 0) },
		"one directory":    func(b string) error { return os.Remove(b + "/a/b") },
		"no directory":     func(b string) error { return os.RemoveAll(b + "/a") },
		"attribute, above": func(b string) error { return unix.Lsetxattr(b+"/a", "user.x", []byte("y"), 0) },
	} {
		got := answerOf(t, change)
		if other, twice := seen[got]; twice {
			t.Errorf("%s: the same digest as %s", name, other)
		}
		seen[got] = name
		if name == "no directory" && got != "" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func setTime(path string, sec, nsec int64) error {
	stamp := time.Unix(sec, nsec)
	return os.Chtimes(path, stamp, stamp)
}

// keepTime gives a directory its time back after change.
func keepTime(path string, change func() error) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := change(); err != nil {
		return err
	}
	return os.Chtimes(path, st.ModTime(), st.ModTime())
}
