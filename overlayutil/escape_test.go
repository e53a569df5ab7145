// SPDX-License-Identifier: Apache-2.0

package overlayutil

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/testutil"
)

// TestEscapesOnTheKernel mounts a directory with every byte in its name as
// lower, upper and work directory: escaped, the kernel must find it; as it is,
// it must find it exactly when nothing needed an escape.
func TestEscapesOnTheKernel(t *testing.T) {
	testutil.RequireRoot(t)
	base := t.TempDir()
	testutil.CheckNoMounts(t, base)
	plain := func(s string) string { return s }
	for b := 1; b < 256; b++ {
		if b == '/' {
			continue
		}
		name := "a" + string([]byte{byte(b)}) + "z"
		for _, use := range []struct {
			kind   string
			escape func(string) string
		}{{"lower", EscapeLower}, {"upper", EscapeOption}, {"work", EscapeOption}} {
			dir := mkdir(t, filepath.Join(base, fmt.Sprintf("%s%d", use.kind, b)))
			if !mountsNamed(t, dir, use.kind, name, use.escape) {
				t.Errorf("%s directory %q: escaped, it was not found", use.kind, name)
			}
			needed := use.escape(name) != name
			if found := mountsNamed(t, dir, use.kind, name, plain); found == needed {
				t.Errorf("%s directory %q: found without escape: %v, escape needed: %v", use.kind, name, found, needed)
			}
			if needed && !NeedsEscape(name) {
				t.Errorf("NeedsEscape(%q) is false", name)
			}
		}
	}
}

// mountsNamed mounts an overlay with one directory of that name and tells
// whether the kernel found it.
func mountsNamed(t *testing.T, base, kind, name string, escape func(string) string) bool {
	t.Helper()
	dirs := map[string]string{"lower": "l", "upper": "u", "work": "w"}
	dirs[kind] = name
	for _, dir := range dirs {
		mkdir(t, filepath.Join(base, dir))
	}
	mkdir(t, filepath.Join(base, "bottom"))
	merged := mkdir(t, filepath.Join(base, "m"))
	write(t, filepath.Join(base, dirs["lower"], "lower"))
	write(t, filepath.Join(base, dirs["upper"], "upper"))

	at := func(k string) string { return base + "/" + escape(dirs[k]) }
	data := fmt.Sprintf("lowerdir=%s:%s/bottom,upperdir=%s,workdir=%s", at("lower"), base, at("upper"), at("work"))
	if err := unix.Mount("overlay", merged, "overlay", 0, data); err != nil {
		return false
	}
	defer func() {
		if err := unix.Unmount(merged, 0); err != nil {
			t.Error(err)
		}
	}()
	_, lowerErr := os.Lstat(filepath.Join(merged, "lower"))
	_, upperErr := os.Lstat(filepath.Join(merged, "upper"))
	return lowerErr == nil && upperErr == nil
}
