// SPDX-License-Identifier: Apache-2.0

package extstore

import (
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/strata-snapshotter/strata/overlayutil"
	"golang.org/x/sys/unix"
)

// maxXattr is the kernel's limit of a value and of a list of names (xattr(7)).
const maxXattr = 64 << 10

type attribute struct {
	name  string
	value string
}

// xattrReader reads attributes with one buffer.
type xattrReader struct{ buf []byte }

func newXattrReader() *xattrReader { return &xattrReader{buf: make([]byte, maxXattr)} }

// read returns the attributes of an entry that belong to a layer, sorted. The
// entry is not opened, and not followed.
func (r *xattrReader) read(e *entry) ([]attribute, error) {
	at := procPath(e.dir, e.base)
	n, err := unix.Llistxattr(at, r.buf)
	if errors.Is(err, unix.EOPNOTSUPP) || n == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "list attributes", Path: e.rel, Err: err}
	}
	var list []attribute
	for name := range strings.SplitSeq(strings.TrimSuffix(string(r.buf[:n]), "\x00"), "\x00") {
		if !isLayers(name) {
			continue
		}
		n, err := unix.Lgetxattr(at, name, r.buf)
		if err != nil {
			return nil, &os.PathError{Op: "read attribute " + name, Path: e.rel, Err: err}
		}
		list = append(list, attribute{name, string(r.buf[:n])})
	}
	slices.SortFunc(list, func(a, b attribute) int { return strings.Compare(a.name, b.name) })
	return list, nil
}

// isLayers leaves out what belongs to a host or its file system: labels,
// signatures, and what such a file system keeps as trusted attributes.
func isLayers(name string) bool {
	switch name {
	case "security.capability", aclAccess, aclDefault:
		return true
	}
	return strings.HasPrefix(name, "user.") || overlayutil.Trusted.IsOverlayXattr(name)
}

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// redirected says whether overlay would look for the file elsewhere in the layers
// below: such a layer means something else over other parents.
func redirected(ns overlayutil.XattrNamespace, attrs []attribute) bool {
	return slices.ContainsFunc(attrs, func(a attribute) bool {
		return a.name == string(ns)+"redirect" || a.name == string(ns)+"metacopy"
	})
}
