// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"path"
	"strings"

	"github.com/strata-snapshotter/strata/overlayutil"
)

// place is where an entry belongs, and what it is there.
type place struct {
	path, dir, base string // slash separated, without leading slash, "." or ".."
	kind            overlayutil.EntryKind
	target          string // of a whiteout: the name it removes
}

// locate reads the name of an entry. What leads out of the layer by ".." stays
// at its root, as in a chroot.
func (x *extraction) locate(name string) (place, error) {
	p, err := x.cleanPath(name)
	if err != nil || p == "" {
		return place{path: p}, err
	}
	l := place{path: p}
	l.dir, l.base = splitLast(p)
	if !strings.Contains(p, overlayutil.WhiteoutPrefix) {
		return l, nil
	}
	if strings.HasPrefix(l.dir, overlayutil.WhiteoutPrefix) || strings.Contains(l.dir, "/"+overlayutil.WhiteoutPrefix) {
		l.kind = overlayutil.Reserved // below something that is no directory
		return l, nil
	}
	l.kind, l.target, err = overlayutil.ParseOCIName(l.base)
	return l, err
}

func (x *extraction) cleanPath(name string) (string, error) {
	limits := x.opts.Limits
	if limits.PathBytes > 0 && len(name) > limits.PathBytes {
		return "", over("the length of its path", int64(limits.PathBytes), name)
	}
	if strings.IndexByte(name, 0) >= 0 {
		return "", bad("entry %s has a zero byte in its name", quote(name))
	}
	p := path.Clean("/" + name)[1:]
	depth := 1
	for rest := p; ; depth++ {
		i := strings.IndexByte(rest, '/')
		component := rest
		if i >= 0 {
			component = rest[:i]
		}
		if limits.NameBytes > 0 && len(component) > limits.NameBytes {
			return "", bad("entry %s has a name of %d bytes", quote(name), len(component))
		}
		if i < 0 {
			break
		}
		rest = rest[i+1:]
	}
	if limits.Depth > 0 && depth > limits.Depth {
		return "", over("the depth of its path", int64(limits.Depth), name)
	}
	return p, nil
}
