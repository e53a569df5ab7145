// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/internal/layertest"
)

// What containerd's own tests ask of an applier (pkg/archive at v2.4.2), as
// tables: a case is an image, and what is in its tree, or that it is refused.
// Every case is extracted with its parents known and without, onto mounts, and
// onto one directory.
//
// A case that deliberately differs from containerd says so, and by which rule.

type tableCase struct {
	name   string
	layers []layertest.Layer
	// want are lines of the tree without owner and times where they do not matter:
	// a line that ends with "..." is a prefix. An empty one says that the path is
	// not there.
	want    map[string]string
	refused bool
	differs string // from containerd, and why
}

type layers = []layertest.Layer

// Short names, as every line below uses them.
var (
	file     = layertest.File
	dir      = layertest.Dir
	symlink  = layertest.Symlink
	hardlink = layertest.Hardlink
	whiteout = layertest.Whiteout
	opaque   = layertest.Opaque
)

// etc is what most cases start from.
var etc = layertest.Layer{dir("etc"), file("etc/passwd", "inside")}

func etcAnd(entries ...layertest.Entry) layertest.Layer {
	return append(append(layertest.Layer{}, etc...), entries...)
}

func runTable(t *testing.T, cases []tableCase) {
	t.Helper()
	ways := []struct {
		name  string
		apply func(*house, [][]byte) (layertest.Tree, error)
	}{
		{"with parents", joined((*house).sequential)},
		{"without parents", joined((*house).parallel)},
		{"onto mounts", (*house).ontoMounts},
		{"onto a directory", (*house).ontoDirectory},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			blobs, err := tars(c.layers)
			must(t, err)
			for _, way := range ways {
				tree, err := way.apply(kernelHouse(t), blobs)
				c.check(t, way.name, tree, err)
			}
		})
	}
}

func joined(order func(*house, [][]byte) (chain, error)) func(*house, [][]byte) (layertest.Tree, error) {
	return func(h *house, blobs [][]byte) (layertest.Tree, error) {
		stack, err := order(h, blobs)
		if err != nil {
			return nil, err
		}
		return h.tree(stack)
	}
}

func (c *tableCase) check(t *testing.T, way string, tree layertest.Tree, err error) {
	t.Helper()
	switch {
	case c.refused && err == nil:
		t.Errorf("%s: not refused", way)
		return
	case c.refused && !errdefs.IsInvalidArgument(err):
		t.Errorf("%s: refused without ErrInvalidArgument: %v", way, err)
		return
	case !c.refused && err != nil:
		t.Errorf("%s: %v", way, err)
		return
	}
	for path, want := range c.want {
		got := tree[path]
		prefix, open := strings.CutSuffix(want, "...")
		if got != want && (!open || !strings.HasPrefix(got, prefix)) {
			t.Errorf("%s: %s: want %q, got %q", way, path, want, got)
		}
	}
}

// linked is a line of a file that two names have.
func linked(data, a, b string) string {
	return `file["` + data + `"] 0644 0:0 mtime=1000000000 link{` + a + "," + b + "}"
}

// TestTableSymlinks: names that lead through links stay inside the image.
func TestTableSymlinks(t *testing.T) {
	unbroken := map[string]string{"/etc/unbroken": `file["unbroken"]...`}
	through := func(name string, links ...layertest.Entry) tableCase {
		l := layertest.Layer{dir("etc"), dir("dummy")}
		l = append(append(l, links...), file("localetc/unbroken", "unbroken"))
		return tableCase{name: name, layers: layers{l}, want: unbroken}
	}
	runTable(t, []tableCase{
		through("absolute", symlink("localetc", "/etc")),
		through("up and out", symlink("localetc", "/dummy/../etc")),
		through("many levels up", symlink("localetc", "../../../../../etc")),
		through("two absolute", symlink("dummy/etc", "/etc"), symlink("localetc", "/dummy/etc")),
		through("absolute, then relative", symlink("dummy/etc", "/etc"), symlink("localetc", "./dummy/etc")),
		through("relative, then up", symlink("dummy/etc", "../etc"), symlink("localetc", "dummy/etc")),
		through("to the root", symlink("dummy/root", "/"), symlink("localetc", "dummy/root/etc")),
		{
			name: "a file emptied through a link",
			layers: layers{{
				dir("etc"), file("etc/emptied", "notempty"), symlink("localetc", "/etc"), file("/localetc/emptied", ""),
			}},
			want: map[string]string{"/etc/emptied": `file[""]...`},
		},
		{
			name:   "a link of a lower layer",
			layers: layers{etcAnd(symlink("localetc", "/etc")), {file("localetc/unbroken", "unbroken")}},
			want:   map[string]string{"/etc/unbroken": `file["unbroken"]...`, "/localetc": "symlink->/etc..."},
		},
		{
			name:   "a chain of links through two layers",
			layers: layers{etcAnd(symlink("one", "etc")), {symlink("two", "/one")}, {file("two/unbroken", "unbroken")}},
			want:   unbroken,
		},
		{
			name:   "a link that leads nowhere",
			layers: layers{{symlink("l", "no/where")}, {file("l/f", "f")}},
			want:   map[string]string{"/no/where/f": `file["f"]...`, "/no": "dir 0755 0:0 mtime=NOW"},
		},
		{
			name:   "links that are kept as they are",
			layers: layers{{symlink("a", "../../../breakout"), symlink("b", "/etc/../../x"), symlink("c", ".")}},
			want: map[string]string{
				"/a": "symlink->../../../breakout 0777...", "/b": "symlink->/etc/../../x 0777...", "/c": "symlink->. 0777...",
			},
		},
		{
			name:   "a link replaced by another",
			layers: layers{{dir("bin"), symlink("bin/o", "../bin/x")}, {whiteout("bin/o"), symlink("bin/o", "/bin/x")}},
			want:   map[string]string{"/bin/o": "symlink->/bin/x..."},
		},
		{
			name:   "a link replaced by a directory",
			layers: layers{{dir("bin"), file("bin/x", "x"), symlink("bin/app", "x")}, {dir("bin/app"), file("bin/app/y", "y")}},
			want:   map[string]string{"/bin/app": "dir 0755...", "/bin/x": `file["x"]...`, "/bin/app/y": `file["y"]...`},
		},
		{
			name:    "a loop",
			layers:  layers{{symlink("a", "b"), symlink("b", "a"), file("a/x", "x")}},
			refused: true,
		},
		{
			name:    "a loop in a lower layer",
			layers:  layers{{symlink("a", "b"), symlink("b", "a")}, {file("a/x", "x")}},
			refused: true,
		},
		{
			name:    "a link to a file as a directory",
			layers:  layers{etcAnd(symlink("l", "etc/passwd")), {file("l/x", "x")}},
			refused: true,
		},
	})
}

// TestTableOverridePath: a directory that becomes a link and a directory again.
func TestTableOverridePath(t *testing.T) {
	l := layertest.Layer{
		dir("foo"), dir("foo/tmp"), file("foo/tmp/breakout", "first"), symlink("foo", "/"),
		file("foo/tmp/breakout", "second"), dir("foo"), dir("foo/tmp"), file("foo/tmp/breakout", "third"),
	}
	runTable(t, []tableCase{{
		name: "override path", layers: layers{l},
		want: map[string]string{"/foo/tmp/breakout": `file["third"]...`, "/tmp/breakout": `file["second"]...`},
	}})
}

func TestTableHardlinks(t *testing.T) {
	both := linked("inside", "/etc/passwd", "/localpasswd")
	direct := func(name, target string, more ...layertest.Entry) tableCase {
		return tableCase{
			name: name, layers: layers{append(etcAnd(more...), hardlink("localpasswd", target))},
			want: map[string]string{"/localpasswd": both, "/etc/passwd": both},
		}
	}
	runTable(t, []tableCase{
		direct("relative above the root", "../../../../../etc/passwd"),
		direct("absolute", "/etc/passwd"),
		direct("through an absolute link", "/localetc/passwd", symlink("localetc", "/etc")),
		direct("through a long relative link", "/localetc/passwd", symlink("localetc", "../../../../../../../etc")),
		direct("through a relative link", "breakouts/d1/passwd", dir("breakouts"), symlink("breakouts/d1", "../../etc")),
		direct("down and out", "/breakouts/d1/passwd", dir("breakouts"), dir("downandout"),
			symlink("breakouts/d1", "../downandout/../../etc")),
		{
			name: "of a lower layer, through a link", layers: layers{etcAnd(symlink("l", "etc")), {hardlink("localpasswd", "l/passwd")}},
			want: map[string]string{"/localpasswd": both, "/etc/passwd": both},
		},
		{
			name: "of a lower layer, then gone from it", layers: layers{etc, {hardlink("localpasswd", "etc/passwd"), whiteout("etc/passwd")}},
			want: map[string]string{"/localpasswd": `file["inside"] 0644 0:0 mtime=1000000000`, "/etc/passwd": ""},
		},
		{
			name: "in a directory with a slash", layers: layers{etcAnd(dir("localetc/"), hardlink("/localetc/p", "/etc/passwd"))},
			want: map[string]string{"/localetc/p": linked("inside", "/etc/passwd", "/localetc/p")},
		},
		{
			name: "over a link over a directory", layers: layers{etcAnd(dir("localetc")), {symlink("localetc", "/etc"), hardlink("localetc/p", "/etc/passwd")}},
			want: map[string]string{"/etc/p": linked("inside", "/etc/p", "/etc/passwd"), "/localetc": "symlink->/etc..."},
		},
		{
			name: "over a relative link over a directory", layers: layers{etcAnd(dir("localetc")), {symlink("localetc", "../../etc"), hardlink("localetc/p", "/etc/passwd")}},
			want: map[string]string{"/etc/p": linked("inside", "/etc/p", "/etc/passwd")},
		},
		{
			name: "into a directory over a link", layers: layers{etcAnd(symlink("localetc", "/etc")), {dir("localetc"), hardlink("localetc/p", "/etc/passwd")}},
			want: map[string]string{"/localetc": "dir 0755...", "/localetc/p": linked("inside", "/etc/passwd", "/localetc/p"), "/etc/p": ""},
		},
		{
			name:   "a link is replaced by a directory, and what it linked to stays",
			layers: layers{etcAnd(symlink("localetc", "etc"), hardlink("localetc/p", "etc/passwd")), {dir("localetc"), file("localetc/p", "different")}},
			want:   map[string]string{"/localetc/p": `file["different"]...`, "/etc/passwd": linked("inside", "/etc/p", "/etc/passwd")},
		},
		{
			name:   "to a symbolic link before its target is there",
			layers: layers{{dir("etc"), symlink("l", "/etc/passwd"), hardlink("l2", "l"), file("etc/passwd", "after")}},
			want:   map[string]string{"/l2": "symlink->/etc/passwd...", "/etc/passwd": `file["after"]...`},
		},
		{
			name:   "to a symbolic link",
			layers: layers{etcAnd(symlink("l", "../../etc/passwd"), hardlink("l2", "/l").Perm(0o600).Owner(3, 4))},
			want:   map[string]string{"/l2": "symlink->../../etc/passwd 0777 3:4...", "/etc/passwd": `file["inside"] 0644 0:0 mtime=1000000000`},
		},
		{
			name:   "to a symbolic link of a lower layer",
			layers: layers{etcAnd(symlink("l", "/etc/passwd")), {hardlink("l2", "l")}},
			want:   map[string]string{"/l2": "symlink->/etc/passwd...", "/etc/passwd": `file["inside"] 0644...`},
		},
		{
			name:   "that carries other metadata",
			layers: layers{{file("a", "a"), hardlink("b", "a").Perm(0o4750).Owner(5, 6).Xattr("user.k", "v")}},
			want:   map[string]string{"/a": `file["a"] 4750 5:6 mtime=1000000000 x{user.k="v"} link{/a,/b}`},
		},
		{
			name:   "to a pipe",
			layers: layers{{layertest.Fifo("a"), hardlink("b", "a").Perm(0o600)}},
			want:   map[string]string{"/b": "fifo 0600 0:0..."},
		},
		{
			name: "replaces a directory", layers: layers{{dir("d"), file("d/x", "x"), file("f", "f"), hardlink("d", "f")}},
			want: map[string]string{"/d": linked("f", "/d", "/f"), "/d/x": ""},
		},
		{name: "to nothing", layers: layers{etcAnd(hardlink("h", "etc/nothing"))}, refused: true},
		{name: "to nothing in a lower layer", layers: layers{etc, {hardlink("h", "etc/nothing")}}, refused: true},
		{name: "to a directory", layers: layers{etcAnd(hardlink("h", "etc"))}, refused: true},
		{name: "to a directory of a lower layer", layers: layers{etc, {hardlink("h", "etc")}}, refused: true},
		{name: "to the root", layers: layers{etcAnd(hardlink("h", "/"))}, refused: true},
		{name: "to what it replaces", layers: layers{{dir("d"), file("d/x", "x"), hardlink("d", "d/x")}}, refused: true},
		{name: "before its target", layers: layers{{hardlink("h", "f"), file("f", "f")}}, refused: true},
		{
			name: "to itself", layers: layers{{file("f", "keep"), hardlink("f", "f")}}, refused: true,
			differs: "containerd deletes the file first, and fails then: the same outcome",
		},
		{
			name: "to a name that the layer deletes", layers: layers{{file("f", "f")}, {whiteout("f"), hardlink("g", "f")}}, refused: true,
			differs: "rule 2: containerd links to the whiteout, which hides the new name, too",
		},
		{
			name: "to a file under an opaque marker", layers: layers{etc, {opaque("etc"), hardlink("g", "etc/passwd")}}, refused: true,
			differs: "rule 2: with an overlay, containerd links to what the layer hides",
		},
	})
}

func TestTableWhiteouts(t *testing.T) {
	runTable(t, []tableCase{
		{name: "of the root's parent", layers: layers{etc, {file(".wh...", "")}}, refused: true},
		{name: "of a parent", layers: layers{etc, {file("etc/.wh...", "")}}, refused: true},
		{name: "of the root", layers: layers{etc, {file(".wh..", "")}}, refused: true},
		{name: "of the directory itself", layers: layers{etc, {file("etc/.wh..", "")}}, refused: true},
		{name: "of no name", layers: layers{etc, {file("etc/.wh.", "")}}, refused: true},
		{name: "in a file", layers: layers{etc, {whiteout("etc/passwd/x")}}, refused: true},
		{
			name: "of a file", layers: layers{etcAnd(file("f", "f")), {whiteout("f")}},
			want: map[string]string{"/f": "", "/etc/passwd": `file["inside"]...`},
		},
		{
			name: "of a directory", layers: layers{etcAnd(file("f", "f")), {whiteout("etc")}},
			want: map[string]string{"/etc": "", "/etc/passwd": "", "/f": `file["f"]...`},
		},
		{
			name: "of a link", layers: layers{etcAnd(symlink("l", "/etc")), {whiteout("l")}},
			want: map[string]string{"/l": "", "/etc/passwd": `file["inside"]...`},
		},
		{
			name: "through a link", layers: layers{etcAnd(file("etc/gone", "x"), symlink("l", "/etc")), {whiteout("l/gone")}},
			want: map[string]string{"/etc/gone": "", "/etc/passwd": `file["inside"]...`, "/l": "symlink->/etc..."},
		},
		{
			name: "through a link that leads nowhere", layers: layers{etcAnd(symlink("l", "/dne")), {whiteout("l/etc")}},
			want: map[string]string{"/etc/passwd": `file["inside"]...`},
		},
		{
			name: "by a relative path", layers: layers{etcAnd(symlink("l", "/dne")), {whiteout("dne/../etc")}},
			want: map[string]string{"/etc": ""},
		},
		{
			name: "of what is not there", layers: layers{etc, {whiteout("etc/x"), whiteout("y")}},
			want: map[string]string{"/etc/passwd": `file["inside"]...`, "/etc/x": "", "/y": ""},
		},
		{
			name: "twice", layers: layers{etc, {whiteout("etc"), whiteout("etc")}},
			want: map[string]string{"/etc": ""},
		},
		{
			name: "of what the layer has", layers: layers{etc, {file("f", "f"), whiteout("f")}},
			want: map[string]string{"/f": "", "/etc/passwd": `file["inside"]...`},
		},
		{
			name: "before what the layer has", layers: layers{etc, {whiteout("etc"), file("etc/new", "n")}},
			want: map[string]string{"/etc": "dir 0755 0:0 mtime=NOW", "/etc/new": `file["n"]...`, "/etc/passwd": ""},
		},
		{
			name: "with content, and as a directory", layers: layers{etcAnd(file("f", "f"), file("g", "g")), {file(".wh.f", "content"), dir(".wh.g")}},
			want: map[string]string{"/f": "", "/g": ""},
		},
		{
			name: "of a name that is a whiteout's", layers: layers{{file("f", "f")}, {whiteout(".wh.f")}},
			want:    map[string]string{"/f": `file["f"]...`},
			differs: "a name that begins with .wh..wh. is one of aufs' own and left out; containerd deletes a file .wh.f",
		},
		{
			name: "opaque", layers: layers{etcAnd(file("etc/shadow", "s")), {opaque("etc"), file("etc/group", "g")}},
			want: map[string]string{"/etc/passwd": "", "/etc/shadow": "", "/etc/group": `file["g"]...`},
		},
		{
			name: "opaque comes last", layers: layers{etc, {file("etc/group", "g"), opaque("etc")}},
			want: map[string]string{"/etc/passwd": "", "/etc/group": `file["g"]...`},
		},
		{
			name: "opaque twice", layers: layers{etc, {opaque("etc"), file("etc/group", "g"), opaque("etc")}},
			want: map[string]string{"/etc/passwd": "", "/etc/group": `file["g"]...`},
		},
		{
			name: "opaque root", layers: layers{etcAnd(file("f", "f")), {opaque(""), file("g", "g")}},
			want: map[string]string{"/etc": "", "/f": "", "/g": `file["g"]...`},
		},
		{
			name: "opaque through a link", layers: layers{etcAnd(symlink("l", "etc")), {opaque("l"), file("etc/new", "n")}},
			want: map[string]string{"/etc/passwd": "", "/etc/new": `file["n"]...`},
		},
		{
			name:    "opaque spares an implicit directory of its layer",
			layers:  layers{etcAnd(dir("etc/d").Perm(0o700), file("etc/d/old", "o")), {file("etc/d/new", "n"), opaque("etc")}},
			want:    map[string]string{"/etc/d/new": `file["n"]...`, "/etc/d/old": "", "/etc/d": "dir 0755 0:0 mtime=NOW"},
			differs: "rule 7: containerd removes etc/d, and with it a file of the marker's own layer",
		},
		{
			name: "leftovers of aufs", layers: layers{etc, {file(".wh..wh.aufs", ""), dir(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", "x"), file("etc/.wh..wh.orph", "")}},
			want:    map[string]string{"/.wh..wh.plnk": "", "/.wh..wh.plnk/1.2": "", "/.wh..wh.aufs": "", "/etc/.wh..wh.orph": ""},
			differs: "containerd leaves .wh..wh.plnk in the root file system",
		},
	})
}

// TestTableRepeatedOpaque: a marker after every file.
func TestTableRepeatedOpaque(t *testing.T) {
	var l layertest.Layer
	for i := range 300 {
		name := "f" + strings.Repeat("x", i%50) + string(rune('a'+i/50))
		l = append(l, file(name, "x"), opaque(""))
	}
	runTable(t, []tableCase{{
		name: "repeated", layers: layers{{file("old", "old")}, l},
		want: map[string]string{"/old": "", "/fa": `file["x"]...`, "/fxxxxf": `file["x"]...`},
	}})
}

func TestTableNames(t *testing.T) {
	kept := map[string]string{"/etc/passwd": `file["inside"]...`}
	runTable(t, []tableCase{
		{
			name: "directories without entries",
			layers: layers{{dir("etc")}, {
				dir("/etc/subdir"), dir("/etc/subdir2/"), dir("/etc/subdir2/more"), dir("/other/noparent-1/1"), dir("/other/noparent-2/2/"),
			}},
			want: map[string]string{
				"/etc/subdir": "dir 0755...", "/etc/subdir2": "dir 0755...", "/etc/subdir2/more": "dir 0755...",
				"/other/noparent-1/1": "dir 0755...", "/other/noparent-2/2": "dir 0755...", "/other": "dir 0755 0:0 mtime=NOW",
			},
		},
		{name: "the root's own entry", layers: layers{append(layertest.Layer{dir("./").Perm(0o700).Owner(3, 3)}, etc...)}, want: map[string]string{"/": "dir 0755 0:0 mtime=NOW"}},
		{name: "the root as /", layers: layers{etcAnd(dir("/").Perm(0o700))}, want: kept},
		{name: "a directory ..", layers: layers{etcAnd(dir("..").Perm(0o777).Owner(9, 9))}, want: map[string]string{"/": "dir 0755 0:0 mtime=NOW"}},
		{name: "above the root", layers: layers{etcAnd(file("../../f", "f"))}, want: map[string]string{"/f": `file["f"]...`}},
		{name: "absolute", layers: layers{etcAnd(file("/etc/f", "f"))}, want: map[string]string{"/etc/f": `file["f"]...`}},
		{
			name: "a link that is the parent", layers: layers{etcAnd(symlink("..", "/etc/"))}, refused: true,
			differs: "what would replace the root is refused; containerd leaves such an entry out",
		},
		{
			name: "a link without a name", layers: layers{etcAnd(symlink("", "/etc/"))}, refused: true,
			differs: "what would replace the root is refused; containerd leaves such an entry out",
		},
		{name: "a name that ends in ..", layers: layers{etcAnd(symlink("localetc/sub/..", "/etc/"), hardlink("localetc/p", "/etc/passwd"))}, want: map[string]string{"/etc/p": linked("inside", "/etc/p", "/etc/passwd")}},
		{name: "a directory below a file", layers: layers{etcAnd(dir("etc/passwd/d"))}, refused: true},
		{name: "a directory below a file of a lower layer", layers: layers{etc, {dir("etc/passwd/d")}}, refused: true},
		{name: "slashes and dots", layers: layers{{file("a//b/./c", "c"), file(".../x", "x"), file("..x", "x")}}, want: map[string]string{"/a/b/c": `file["c"]...`, "/.../x": `file["x"]...`, "/..x": `file["x"]...`}},
	})
}
