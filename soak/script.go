// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/hex"
	"fmt"
	"path"
	"strings"

	"github.com/strata-snapshotter/strata/internal/layertest"
)

// written is what a container writes: files in a directory of its own, and, where the
// image has them, changes to what it finds.
func (p *planner) written(dir string, hasEtc bool) layertest.Layer {
	l := layertest.Layer{layertest.Dir(dir).Owner(3, 4).Perm(0o711)}
	for i := range 1 + p.IntN(8) {
		l = append(l, p.file(fmt.Sprintf("%s/%d", dir, i)))
	}
	link := l[1]
	link.Type, link.Name, link.Link, link.Data = layertest.TypeHardlink, dir+"/link", l[1].Name, ""
	l = append(l, link, layertest.Symlink(dir+"/sym", "anywhere"))
	if !hasEtc {
		return l
	}
	if p.IntN(2) == 0 {
		l = append(l, p.file("etc/common-0"), layertest.Whiteout("root-3"))
	}
	if p.IntN(4) == 0 { // removed and made again: an opaque directory
		l = append(l, layertest.Dir("usr/lib").Perm(0o750), layertest.Opaque("usr/lib"), p.file("usr/lib/anew"))
	}
	return l
}

func (p *planner) file(name string) layertest.Entry {
	data := make([]byte, p.IntN(1500))
	for i := range data {
		data[i] = byte(p.Uint32())
	}
	return layertest.File(name, hex.EncodeToString(data)).Perm(layertest.Octal(0o600+p.IntN(64))).Owner(p.IntN(9), p.IntN(7))
}

// script does what makes a layer of it, also where it was done before, in part or whole.
func script(l layertest.Layer) string {
	var b strings.Builder
	b.WriteString("umask 022\n")
	for _, e := range l {
		dir, base := path.Split(e.Name)
		switch {
		case base == ".wh..wh..opq": // its directory is made anew below
		case strings.HasPrefix(base, ".wh."):
			fmt.Fprintf(&b, "rm -rf '/%s%s'\n", dir, strings.TrimPrefix(base, ".wh."))
		default:
			fmt.Fprintf(&b, "rm -rf '/%s'\n", e.Name)
			create(&b, e)
		}
	}
	return b.String()
}

func create(b *strings.Builder, e layertest.Entry) {
	switch e.Type {
	case layertest.TypeDir:
		fmt.Fprintf(b, "mkdir '/%s'\n", e.Name)
	case layertest.TypeSymlink:
		fmt.Fprintf(b, "ln -s '%s' '/%s'\n", e.Link, e.Name)
		return // modes and owners of links are nobody's concern
	case layertest.TypeHardlink:
		fmt.Fprintf(b, "ln '/%s' '/%s'\n", e.Link, e.Name)
		return
	default:
		fmt.Fprintf(b, "echo -n '%s' >'/%s'\n", e.Data, e.Name)
	}
	fmt.Fprintf(b, "chown %d:%d '/%s'\nchmod %o '/%s'\n", e.UID, e.GID, e.Name, int64(e.Mode), e.Name)
}

// check fails unless a file has its content.
func check(e *layertest.Entry) string {
	if e == nil {
		return ""
	}
	return fmt.Sprintf("test \"$(cat '/%s')\" = '%s'\n", e.Name, e.Data)
}
