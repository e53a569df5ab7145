// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/hex"
	"fmt"
	"iter"
	"math/rand/v2"

	"github.com/strata-snapshotter/strata/internal/layertest"
)

// chains are the images, by the names of their layers: with layers that several have,
// in other places of other chains, and with every kind of layer on every kind of base.
var chains = []string{
	"base-small implicit white one",
	"base-small medium implicit opaque two",
	"base-medium implicit white",
	"base-medium one two three four linked five",
	"base-large white implicit",
	"base-large opaque",
	"base-small linked implicit",
	"base-bare one implicit three five white",
	"base-bare large two",
	"one",
}

// allLayers makes every layer, by name, always in the same order.
func allLayers(random *rand.Rand) iter.Seq2[string, layertest.Layer] {
	g := &generator{random}
	return func(yield func(string, layertest.Layer) bool) {
		for i, files := range []int{smallFiles, mediumFiles, largeFiles, 0} {
			if !yield([]string{"base-small", "base-medium", "base-large", "base-bare"}[i], g.base(i, files)) {
				return
			}
		}
		_ = yield("medium", g.files("medium", mediumFiles)) &&
			yield("large", g.files("large", largeFiles)) &&
			yield("implicit", g.implicit()) &&
			yield("white", g.white()) &&
			yield("opaque", g.opaque()) &&
			yield("linked", g.linked()) &&
			yield("one", g.files("one", 1)) &&
			yield("two", g.files("two", 12)) &&
			yield("three", g.files("three", 600)) && // more than are synced one by one
			yield("four", g.files("four", 3)) &&
			yield("five", layertest.Layer{layertest.Dir("five")})
	}
}

// generator makes layers at random.
type generator struct{ *rand.Rand }

// commonFiles is how many files in etc all bases have.
const commonFiles = 10

// base has what other layers refer to, with another owner and mode in each base, and
// files of its own.
func (g *generator) base(i, files int) layertest.Layer {
	dir := func(name string) layertest.Entry {
		return layertest.Dir(name).Owner(i, i+1).Perm(layertest.Octal(0o700+i)).At(900_000_000+int64(i), 5)
	}
	l := layertest.Layer{dir("etc").Xattr("user.base", fmt.Sprint(i)), dir("usr"), dir("usr/lib"), dir("usr/share")}
	for n := range commonFiles {
		l = append(l, g.file(fmt.Sprintf("etc/common-%d", n)), g.file(fmt.Sprintf("root-%d", n)), g.file(fmt.Sprintf("usr/share/%d", n)))
	}
	return append(l, g.files(fmt.Sprintf("base-%d", i), files)...)
}

// files are in some directories of their own, with links of both kinds and attributes.
func (g *generator) files(name string, n int) layertest.Layer {
	l := layertest.Layer{layertest.Dir(name).Perm(0o755)}
	dirs := n/100 + 1
	for d := range dirs {
		l = append(l, layertest.Dir(fmt.Sprintf("%s/d%02d", name, d)).Perm(0o750).Owner(d, d).At(layertest.Epoch, int64(d)))
	}
	for i := range n {
		f := g.file(fmt.Sprintf("%s/d%02d/f%05d", name, i%dirs, i))
		l = append(l, f)
		if i%50 == 7 {
			link := f
			link.Type, link.Name, link.Link, link.Data = layertest.TypeHardlink, f.Name+".link", f.Name, ""
			l = append(l, link, layertest.Symlink(f.Name+".sym", "../"+f.Name).Owner(i, 1))
		}
	}
	return l
}

// file has a length, owner, mode, time and attributes at random.
func (g *generator) file(name string) layertest.Entry {
	e := layertest.File(name, g.data()).Perm(layertest.Octal(0o600+g.IntN(64))).Owner(g.IntN(9), g.IntN(7))
	e = e.At(1_000_000_000+g.Int64N(1000), g.Int64N(1_000_000_000))
	if g.IntN(30) == 0 {
		e = e.Xattr("user.k", hex.EncodeToString(g.bytes(g.IntN(40))))
	}
	return e
}

// data is hexadecimal: some files are empty, some would fit into an inode, a few are
// large.
func (g *generator) data() string {
	size := 100 + g.IntN(1500)
	switch g.IntN(20) {
	case 0:
		size = 0
	case 1, 2:
		size = 1 + g.IntN(30)
	case 3:
		size = 4000 + g.IntN(30_000)
	}
	return hex.EncodeToString(g.bytes(size))
}

func (g *generator) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.Uint32())
	}
	return b
}

// implicit has files in directories that it has no entries for: a patch says what they
// look like on each chain.
func (g *generator) implicit() layertest.Layer {
	var l layertest.Layer
	for i := range 20 {
		l = append(l, g.file(fmt.Sprintf("usr/lib/new-%d", i)), g.file(fmt.Sprintf("usr/share/deep/er/new-%d", i)))
	}
	return append(l, g.file("etc/new"))
}

// white deletes, and has something else in the place of what it deletes.
func (g *generator) white() layertest.Layer {
	return layertest.Layer{
		layertest.Whiteout("etc/common-1"), layertest.Whiteout("etc/common-2"), layertest.Whiteout("root-1"),
		g.file("etc/common-3"), layertest.Dir("etc/common-4"), g.file("etc/common-4/inside"),
		layertest.Whiteout("usr/share"), layertest.Dir("late"), g.file("late/file"),
	}
}

// opaque hides a directory, and has it anew.
func (g *generator) opaque() layertest.Layer {
	return layertest.Layer{layertest.Dir("etc"), layertest.Opaque("etc"), g.file("etc/only"), layertest.Dir("usr"), layertest.Opaque("usr")}
}

// linked has a second name for a file of a layer below, so that it has to be extracted
// onto each chain.
func (g *generator) linked() layertest.Layer {
	link := g.file("etc/second-name")
	link.Type, link.Data, link.Link = layertest.TypeHardlink, "", "etc/common-7"
	link.Xattrs = nil
	return append(layertest.Layer{link}, g.files("linked", 40)...)
}
