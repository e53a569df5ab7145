// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// TestOverrideStatWithoutXattrs extracts onto a file system without user attributes:
// owners are lost, with one warning, and names and contents are all there.
func TestOverrideStatWithoutXattrs(t *testing.T) {
	testutil.RequireRoot(t)
	base := t.TempDir()
	testutil.CheckNoMounts(t, base)
	testutil.MountAll(t, []mount.Mount{{Type: "ramfs", Source: "ramfs"}}, base)
	if err := unix.Setxattr(base, "user.k", nil, 0); err != unix.ENOTSUP {
		testutil.CannotRun(t, "needs a ramfs without attributes")
	}
	var warnings []string
	h := &plainHouse{house{base: base, options: archive.Options{OverrideStat: true}}}
	warn := func(text string) { warnings = append(warnings, text) }
	image := []layertest.Layer{
		{
			layertest.File("gone", "x"), layertest.File("kept", "k"), layertest.Dir("d"), layertest.File("d/hidden", "x"),
			layertest.Dir("e"), layertest.File("e/gone", "x"), layertest.Symlink("l", "e"), layertest.File("again", "x"),
		},
		{
			layertest.Whiteout("gone"), layertest.Dir("d"), layertest.Opaque("d"), layertest.File("d/new", "n"), layertest.Fifo("fifo"),
			layertest.Whiteout("again"), layertest.File("again", "new"), layertest.Whiteout("l/gone"), layertest.File("l/new", "n"),
			layertest.File("kept", "c").Xattr("user.k", "v").Xattr("security.capability", capability),
		},
	}
	blobs, err := tars(image)
	must(t, err)
	h.options.Warn = warn
	lower, err := h.extract(blobs[0])
	must(t, err)
	if len(warnings) != 1 || !strings.Contains(warnings[0], "no user attributes") {
		t.Errorf("warnings: %q", warnings)
	}
	warnings = nil
	top, err := h.onto(chain{topOf(lower)}, blobs[1])
	must(t, err)
	if len(warnings) != 1 {
		t.Errorf("warnings: %q", warnings)
	}
	want := map[string]string{
		"gone": "", ".wh.gone": "", "d/new": "n", "d/.wh.hidden": "", "fifo": "", "again": "new", "e/.wh.gone": "", "e/gone": "", "e/new": "n", "kept": "c",
	}
	got := map[string]string{}
	must(t, filepath.WalkDir(top[0].Path, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		got[strings.TrimPrefix(path, top[0].Path+"/")] = string(data)
		return err
	}))
	for name, data := range want {
		if there, ok := got[name]; !ok || there != data {
			t.Errorf("%s: %q, %v", name, there, ok)
		}
	}
	blob, err := h.diff(top[0].Path, chain{topOf(lower)})
	must(t, err)
	for _, entry := range []string{"0 .wh.gone ", "0 d/.wh.hidden ", "0 e/.wh.gone ", "0 again ", "0 e/new "} {
		if !strings.Contains(listTar(blob), entry) {
			t.Errorf("no %q in\n%s", entry, listTar(blob))
		}
	}
}
