// SPDX-License-Identifier: Apache-2.0

package layertest

import (
	"encoding/hex"
	"fmt"
	"iter"
	"math/rand/v2"
)

// Chains are images of the layers that Shapes makes, by their names: with layers that
// several have, in other places of other chains, and with every kind of layer on every
// kind of base.
var Chains = []string{
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

// Sizes are how many files the large layers of Shapes have.
type Sizes struct{ Small, Medium, Large, Three int }

// Shapes makes every layer of Chains, by name, always in the same order.
func Shapes(random *rand.Rand, sizes Sizes) iter.Seq2[string, Layer] {
	g := &Generator{random}
	return func(yield func(string, Layer) bool) {
		for i, files := range []int{sizes.Small, sizes.Medium, sizes.Large, 0} {
			if !yield([]string{"base-small", "base-medium", "base-large", "base-bare"}[i], g.base(i, files)) {
				return
			}
		}
		_ = yield("medium", g.files("medium", sizes.Medium)) &&
			yield("large", g.files("large", sizes.Large)) &&
			yield("implicit", g.implicit()) &&
			yield("white", g.white()) &&
			yield("opaque", g.opaque()) &&
			yield("linked", g.linked()) &&
			yield("one", g.files("one", 1)) &&
			yield("two", g.files("two", 12)) &&
			yield("three", g.files("three", sizes.Three)) &&
			yield("four", g.files("four", 3)) &&
			yield("five", Layer{Dir("five")})
	}
}

// Generator makes layers at random.
type Generator struct{ *rand.Rand }

// commonFiles is how many files in etc all bases have.
const commonFiles = 10

// base has what other layers refer to, with another owner and mode in each base, and
// files of its own.
func (g *Generator) base(i, files int) Layer {
	dir := func(name string) Entry {
		return Dir(name).Owner(i, i+1).Perm(Octal(0o700+i)).At(900_000_000+int64(i), 5)
	}
	l := Layer{dir("etc").Xattr("user.base", fmt.Sprint(i)), dir("usr"), dir("usr/lib"), dir("usr/share")}
	for n := range commonFiles {
		l = append(l, g.File(fmt.Sprintf("etc/common-%d", n)), g.File(fmt.Sprintf("root-%d", n)), g.File(fmt.Sprintf("usr/share/%d", n)))
	}
	return append(l, g.files(fmt.Sprintf("base-%d", i), files)...)
}

// files are in some directories of their own, with links of both kinds and attributes.
func (g *Generator) files(name string, n int) Layer {
	l := Layer{Dir(name).Perm(0o755)}
	dirs := n/100 + 1
	for d := range dirs {
		l = append(l, Dir(fmt.Sprintf("%s/d%02d", name, d)).Perm(0o750).Owner(d, d).At(Epoch, int64(d)))
	}
	for i := range n {
		f := g.File(fmt.Sprintf("%s/d%02d/f%05d", name, i%dirs, i))
		l = append(l, f)
		if i%50 == 7 {
			link := f
			link.Type, link.Name, link.Link, link.Data = TypeHardlink, f.Name+".link", f.Name, ""
			l = append(l, link, Symlink(f.Name+".sym", "../"+f.Name).Owner(i, 1))
		}
	}
	return l
}

// File has a length, owner, mode, time and attributes at random.
func (g *Generator) File(name string) Entry {
	e := File(name, g.data()).Perm(Octal(0o600+g.IntN(64))).Owner(g.IntN(9), g.IntN(7))
	e = e.At(1_000_000_000+g.Int64N(1000), g.Int64N(1_000_000_000))
	if g.IntN(30) == 0 {
		e = e.Xattr("user.k", hex.EncodeToString(g.bytes(g.IntN(40))))
	}
	return e
}

// data is hexadecimal: some files are empty, some would fit into an inode, a few are
// large.
func (g *Generator) data() string {
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

func (g *Generator) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.Uint32())
	}
	return b
}

// implicit has files in directories that it has no entries for: a patch says what they
// look like on each chain.
func (g *Generator) implicit() Layer {
	var l Layer
	for i := range 20 {
		l = append(l, g.File(fmt.Sprintf("usr/lib/new-%d", i)), g.File(fmt.Sprintf("usr/share/deep/er/new-%d", i)))
	}
	return append(l, g.File("etc/new"))
}

// white deletes, and has something else in the place of what it deletes.
func (g *Generator) white() Layer {
	return Layer{
		Whiteout("etc/common-1"), Whiteout("etc/common-2"), Whiteout("root-1"),
		g.File("etc/common-3"), Dir("etc/common-4"), g.File("etc/common-4/inside"),
		Whiteout("usr/share"), Dir("late"), g.File("late/file"),
	}
}

// opaque hides a directory, and has it anew.
func (g *Generator) opaque() Layer {
	return Layer{Dir("etc"), Opaque("etc"), g.File("etc/only"), Dir("usr"), Opaque("usr")}
}

// linked has a second name for a file of a layer below, so that it has to be extracted
// onto each chain.
func (g *Generator) linked() Layer {
	link := g.File("etc/second-name")
	link.Type, link.Data, link.Link = TypeHardlink, "", "etc/common-7"
	link.Xattrs = nil
	return append(Layer{link}, g.files("linked", 40)...)
}
