// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"path"
)

// layer is one file of the corpus, made by writing its entries.
type layer struct {
	name string
	make func(*archive)
}

const (
	appFiles    = 20_000
	baseFiles   = 1500
	smallLayers = 50
	hugeFiles   = 3
	hugeSize    = 48 << 20
)

func layers(f files) []layer {
	all := []layer{
		{"a", f.base},
		{"b", f.install},
		{"c", f.app},
		{"d", f.toolchain},
		{"e", f.huge},
	}
	for i := range smallLayers {
		all = append(all, layer{fmt.Sprintf("f/%03d", i), func(a *archive) { f.small(a, i) }})
	}
	return all
}

func (f files) source(i int) []byte { return f.sources[i%len(f.sources)] }
func (f files) binary(i int) []byte { return f.binaries[i%len(f.binaries)] }

// base is like a distribution's: system directories, links, a few programs.
func (f files) base(a *archive) {
	for _, dir := range []string{"etc", "usr", "usr/bin", "usr/lib", "usr/share", "usr/share/doc", "tmp", "var", "var/lib"} {
		a.dir(dir)
	}
	a.symlink("bin", "usr/bin")
	a.symlink("lib", "usr/lib")
	for i := range baseFiles {
		dir := fmt.Sprintf("usr/share/doc/package-%03d", i/5)
		if i%5 == 0 {
			a.dir(dir)
		}
		a.file(fmt.Sprintf("%s/file-%d", dir, i%5), 0o644, f.source(i))
	}
	for i := range 4 {
		a.file(fmt.Sprintf("usr/bin/program-%d", i), 0o755, f.binary(i))
		a.link(fmt.Sprintf("usr/bin/alias-%d", i), fmt.Sprintf("usr/bin/program-%d", i))
	}
}

// install is like a package manager's run on the base: larger libraries, and
// documentation deleted, once file by file and once as a whole.
func (f files) install(a *archive) {
	a.dir("usr")
	a.dir("usr/lib")
	a.dir("usr/share")
	a.dir("usr/share/doc")
	for i := range 100 {
		a.file(fmt.Sprintf("usr/share/doc/.wh.package-%03d", i), 0o644, nil)
	}
	a.dir("usr/share/doc/package-200")
	a.file("usr/share/doc/package-200/.wh..wh..opq", 0o644, nil)
	a.file("usr/share/doc/package-200/new", 0o644, f.source(0))
	for i := range 900 {
		dir := fmt.Sprintf("usr/lib/module-%03d", i/15)
		if i%15 == 0 {
			a.dir(dir)
		}
		a.file(fmt.Sprintf("%s/file-%02d", dir, i%15), 0o644, f.source(2000+i))
	}
	for i := range 6 {
		a.file(fmt.Sprintf("usr/lib/lib-%d.so", i), 0o755, f.binary(4+i))
	}
}

// app is like a node application's: very many small files in many directories.
func (f files) app(a *archive) {
	a.dir("usr")
	a.dir("usr/src")
	a.dir("usr/src/app")
	a.dir("usr/src/app/node_modules")
	for i := range appFiles {
		dir := fmt.Sprintf("usr/src/app/node_modules/package-%04d", i/20)
		if i%20 == 0 {
			a.dir(dir)
		}
		// Pieces of sources, 0.3 to 8 KiB.
		source := f.source(i * 7)
		size := min(len(source), 300+(i*2654435761)%7900)
		a.file(fmt.Sprintf("%s/module-%02d.js", dir, i%20), 0o644, source[:size])
	}
}

// toolchain is sources and large programs.
func (f files) toolchain(a *archive) {
	for _, dir := range []string{"usr", "usr/local", "usr/local/go", "usr/local/go/src", "usr/local/go/bin"} {
		a.dir(dir)
	}
	for i := range 3000 {
		dir := fmt.Sprintf("usr/local/go/src/package-%03d", i/15)
		if i%15 == 0 {
			a.dir(dir)
		}
		a.file(fmt.Sprintf("%s/source-%02d.go", dir, i%15), 0o644, f.source(i))
	}
	for i := range 8 {
		a.file(fmt.Sprintf("usr/local/go/bin/tool-%d", i), 0o755, f.binary(i))
	}
}

// huge is few files that compress well.
func (f files) huge(a *archive) {
	a.dir("opt")
	for i := range hugeFiles {
		var data bytes.Buffer
		for n := 0; data.Len() < hugeSize; n++ {
			// Programs with a bit of text in between.
			data.Write(f.binary(i + n))
			data.Write(f.source(i*100 + n))
		}
		a.file(fmt.Sprintf("opt/huge-%d", i), 0o755, data.Bytes()[:hugeSize])
	}
}

// small is like a small package's, with directories that other layers have too.
func (f files) small(a *archive, n int) {
	for _, dir := range []string{"usr", "usr/share", "usr/share/doc", fmt.Sprintf("usr/share/doc/small-%03d", n)} {
		a.dir(dir)
	}
	for i := range 12 {
		a.file(path.Join("usr/share/doc", fmt.Sprintf("small-%03d", n), fmt.Sprintf("file-%02d", i)), 0o644, f.source(n*12+i))
	}
}
