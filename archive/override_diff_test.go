// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/overlayutil"
)

// diff writes what a directory changes of a chain.
func (h *plainHouse) diff(upper string, below chain) (blob []byte, err error) {
	var out bytes.Buffer
	err = h.stacked(below, func(options archive.Options) error {
		return withDir(upper, func(dir *os.File) error {
			from := archive.Upper{Dir: dir, OverrideStat: true, Lowers: options.Lowers}
			_, err := archive.Diff(context.Background(), &out, from, archive.DiffOptions{})
			return err
		})
	})
	return out.Bytes(), err
}

// TestRandomDiffsOverrideStat: the layer that comes of a directory, joined again, shows
// what the directory shows.
func TestRandomDiffsOverrideStat(t *testing.T) {
	if !testutil.AsUser(t) {
		return
	}
	h := newPlainHouse(t)
	compared := 0
	rapid.Check(t, func(t *rapid.T) {
		defer func() {
			if err := h.clear(); err != nil {
				t.Fatal(err)
			}
		}()
		blobs, err := tars(layertest.Image().Draw(t, "image"))
		if err != nil {
			t.Fatal(err)
		}
		below, err := h.parallel(blobs[:len(blobs)-1])
		if err != nil {
			return
		}
		above, err := h.onto(below, blobs[len(blobs)-1])
		if err != nil {
			return
		}
		compared++
		h.checkDiff(t, below, above)
	})
	if compared == 0 {
		t.Error("nothing was compared")
	}
}

func (h *plainHouse) checkDiff(t *rapid.T, below, above chain) {
	want, err := h.tree(above)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := h.diff(above[0].Path, below)
	if errors.Is(err, archive.ErrUnsure) {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	again, err := h.extract(blob)
	if err != nil {
		t.Fatalf("%v\n%s", err, listTar(blob))
	}
	c, err := h.join(below, again)
	if err != nil {
		t.Fatalf("%v\n%s", err, listTar(blob))
	}
	got, err := h.tree(c)
	if err != nil {
		t.Fatal(err)
	}
	if diffs := want.Diff(got); len(diffs) > 0 {
		t.Fatalf("the wrong tree:\n%s\nof\n%s", strings.Join(diffs, "\n"), listTar(blob))
	}
}

// listTar shows a tar in a line for each entry.
func listTar(blob []byte) string {
	var b strings.Builder
	for r := tar.NewReader(bytes.NewReader(blob)); ; {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		if err != nil {
			return b.String() + err.Error()
		}
		fmt.Fprintf(&b, "%c %s %04o %d:%d", e.Typeflag, e.Name, e.Mode, e.Uid, e.Gid)
		if e.Linkname != "" {
			fmt.Fprintf(&b, " -> %s", e.Linkname)
		}
		if e.Typeflag == tar.TypeBlock || e.Typeflag == tar.TypeChar {
			fmt.Fprintf(&b, " %d:%d", e.Devmajor, e.Devminor)
		}
		for _, key := range slices.Sorted(maps.Keys(e.PAXRecords)) {
			if strings.HasPrefix(key, "SCHILY.xattr.") {
				fmt.Fprintf(&b, " %s=%q", key, e.PAXRecords[key])
			}
		}
		b.WriteByte('\n')
	}
}

// upperMaker makes an upper directory of an ordinary user.
type upperMaker struct {
	t    *testing.T
	root string
}

func (m upperMaker) at(name string) string { return filepath.Join(m.root, name) }

func (m upperMaker) file(name string, attrs ...string) {
	must(m.t, os.WriteFile(m.at(name), nil, 0o600))
	m.mark(name, attrs...)
}

func (m upperMaker) dir(name string, attrs ...string) {
	must(m.t, os.Mkdir(m.at(name), 0o700))
	m.mark(name, attrs...)
}

func (m upperMaker) mark(name string, attrs ...string) {
	for i := 0; i < len(attrs); i += 2 {
		must(m.t, unix.Setxattr(m.at(name), attrs[i], []byte(attrs[i+1]), 0))
	}
}

const (
	containersAttr = "user.containers.override_stat"
	fuseAttr       = "user.fuseoverlayfs.override_stat"
)

// TestDiffOverrideStat turns what Strata, containers/storage and fuse-overlayfs write
// into entries of a layer.
func TestDiffOverrideStat(t *testing.T) {
	if !testutil.AsUser(t) {
		return
	}
	for name, c := range map[string]struct {
		below, make func(upperMaker)
		want        string
	}{
		"file":          {nil, func(m upperMaker) { m.file("f", containersAttr, "5:6:4755:file") }, "0 f 4755 5:6\n"},
		"three parts":   {nil, func(m upperMaker) { m.file("f", containersAttr, "5:6:755") }, "0 f 0755 5:6\n"},
		"type bits":     {nil, func(m upperMaker) { m.file("f", fuseAttr, "7:8:104711") }, "0 f 4711 7:8\n"},
		"the newer one": {nil, func(m upperMaker) { m.file("f", containersAttr, "5:6:0644:file", fuseAttr, "7:8:100600") }, "0 f 0600 7:8\n"},
		"no attribute":  {nil, func(m upperMaker) { m.file("f") }, fmt.Sprintf("0 f 0600 %d:%d\n", os.Geteuid(), os.Getegid())},
		"largest ids":   {nil, func(m upperMaker) { m.file("f", containersAttr, "4294967294:4294967294:0644:file") }, "0 f 0644 4294967294:4294967294\n"},
		"fifo":          {nil, func(m upperMaker) { m.file("f", containersAttr, "0:0:0600:pipe") }, "6 f 0600 0:0\n"},
		"block":         {nil, func(m upperMaker) { m.file("f", containersAttr, "0:6:0660:block-8-300") }, "4 f 0660 0:6 8:300\n"},
		"char":          {nil, func(m upperMaker) { m.file("f", containersAttr, "0:0:0666:char-1-3") }, "3 f 0666 0:0 1:3\n"},
		"char, changed": {nil, func(m upperMaker) { m.file("f", containersAttr, "0:0:0666:char-1-3", fuseAttr, "0:0:100600") }, "3 f 0600 0:0 1:3\n"},
		"directory":     {nil, func(m upperMaker) { m.dir("d", containersAttr, "1:2:1777:dir") }, "5 d/ 1777 1:2\n"},
		"capability": {nil, func(m upperMaker) {
			m.file("f", containersAttr, "0:0:0755:file", "user.containers.security.capability", capability)
		}, "0 f 0755 0:0 SCHILY.xattr.security.capability=" + fmt.Sprintf("%q", capability) + "\n"},
		"own attributes": {nil, func(m upperMaker) {
			m.file("f", containersAttr, "0:0:0644:file", "user.fuseoverlayfs.origin", "x", "user.k", "v")
		}, "0 f 0644 0:0 SCHILY.xattr.user.k=\"v\"\n"},
		"symlink": {nil, func(m upperMaker) { must(t, os.Symlink("to", m.at("l"))) }, "2 l 0777 0:0 -> to\n"},
		"whiteout": {func(m upperMaker) { m.file("f", containersAttr, "0:0:0644:file") }, func(m upperMaker) {
			m.file("f", "user.overlay.whiteout", "y")
			m.file(".wh.f", "user.overlay.whiteout", "y")
		}, "0 .wh.f 0000 0:0\n"},
		"whiteout of nothing": {nil, func(m upperMaker) {
			m.file("f", "user.overlay.whiteout", "y")
			m.file(".wh.f", "user.overlay.whiteout", "y")
		}, ""},
		"whiteout device": {func(m upperMaker) { m.file("f", containersAttr, "0:0:0644:file") }, func(m upperMaker) { must(t, unix.Mknod(m.at("f"), unix.S_IFCHR, 0)) }, "0 .wh.f 0000 0:0\n"},
		"whiteout name":   {func(m upperMaker) { m.file("f", containersAttr, "0:0:0644:file") }, func(m upperMaker) { m.file(".wh.f") }, "0 .wh.f 0000 0:0\n"},
		"opaque": {
			func(m upperMaker) {
				m.dir("d", containersAttr, "0:0:0755:dir")
				m.file("d/f", containersAttr, "0:0:0644:file")
			},
			func(m upperMaker) { m.dir("d", containersAttr, "0:0:0755:dir", "user.overlay.opaque", "y") },
			"5 d/ 0755 0:0\n0 d/.wh..wh..opq 0000 0:0\n",
		},
		"opaque of fuse-overlayfs": {
			func(m upperMaker) {
				m.dir("d", containersAttr, "0:0:0755:dir")
				m.file("d/f", containersAttr, "0:0:0644:file")
			},
			func(m upperMaker) {
				m.dir("d", fuseAttr, "0:0:755", "user.fuseoverlayfs.opaque", "y")
				m.file("d/.wh..wh..opq")
				must(t, unix.Mknod(m.at("d/.wh..opq"), unix.S_IFCHR, 0))
			},
			"5 d/ 0755 0:0\n0 d/.wh..wh..opq 0000 0:0\n",
		},
		"opaque name": {
			func(m upperMaker) { m.dir("d", containersAttr, "0:0:0755:dir") },
			func(m upperMaker) { m.dir("d", containersAttr, "0:0:0755:dir"); m.file("d/.wh..wh..opq") },
			"5 d/ 0755 0:0\n0 d/.wh..wh..opq 0000 0:0\n",
		},
		"one of two changed": {
			func(m upperMaker) {
				m.dir("d", containersAttr, "3:4:0750:dir")
				m.file("d/f", containersAttr, "0:0:0644:file")
			},
			func(m upperMaker) {
				m.dir("d", fuseAttr, "3:4:40750")
				m.file("d/f", containersAttr, "0:0:0644:file", fuseAttr, "0:0:100600")
			},
			"5 d/ 0750 3:4\n0 d/f 0600 0:0\n",
		},
		"not changed": {
			func(m upperMaker) {
				m.dir("d", containersAttr, "3:4:0750:dir")
				m.file("d/f", containersAttr, "0:0:0644:file")
			},
			func(m upperMaker) { m.dir("d", fuseAttr, "3:4:40750"); m.file("d/f", fuseAttr, "0:0:100644") },
			"",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newPlainHouse(t)
			m := upperMaker{t, t.TempDir()}
			below := upperMaker{t, t.TempDir()}
			below.mark("", containersAttr, "0:0:0755:dir")
			if c.below != nil {
				c.below(below)
			}
			c.make(m)
			for _, root := range []string{m.root, below.root} {
				must(t, filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
					at := []unix.Timespec{{Sec: 1e9}, {Sec: 1e9}}
					return errors.Join(err, unix.UtimesNanoAt(unix.AT_FDCWD, path, at, unix.AT_SYMLINK_NOFOLLOW))
				}))
			}
			var stack chain
			if c.below != nil {
				stack = chain{overlayutil.Layer{Path: below.root}}
			}
			blob, err := h.diff(m.root, stack)
			must(t, err)
			if got := listTar(blob); got != c.want {
				t.Errorf("got\n%swant\n%s", got, c.want)
			}
		})
	}
}

// TestDiffOverrideStatRefuses: what no reader could make sense of is an error that
// names the file.
func TestDiffOverrideStatRefuses(t *testing.T) {
	if !testutil.AsUser(t) {
		return
	}
	for _, value := range []string{"", "1", "1:2", "a:0:0644", "0:b:0644", "0:0:9", "-1:0:0644", "4294967296:0:0644", "0:0:0644:", "0:0:0644:fifo", "0:0:0644:char", "0:0:0644:char-0-0", "0:0:0644:block-1", "0:0:0644:file-1", "0:0:7777777", strings.Repeat("0", 300)} {
		h := newPlainHouse(t)
		m := upperMaker{t, t.TempDir()}
		m.file("f", containersAttr, value)
		if _, err := h.diff(m.root, nil); err == nil || (value != "" && !strings.Contains(err.Error(), `"f"`)) {
			t.Errorf("%q: %v", value, err)
		}
	}
}
