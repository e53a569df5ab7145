// SPDX-License-Identifier: Apache-2.0

package overlayutil

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Names that mean something in a layer's tar (OCI image-spec, layer.md).
const (
	// WhiteoutPrefix before a name says that the name is deleted.
	WhiteoutPrefix = ".wh."
	// OpaqueMarker says that the directory it is in hides the one below.
	OpaqueMarker = ".wh..wh..opq"
	// ReservedPrefix begins the names that aufs kept for itself. Apart from
	// OpaqueMarker they are leftovers that no image means.
	ReservedPrefix = WhiteoutPrefix + WhiteoutPrefix
)

// EntryKind is what the base name of a tar entry says about it.
type EntryKind int

// The kinds of ParseOCIName.
const (
	// Plain is an entry like any other.
	Plain EntryKind = iota
	// Whiteout deletes the target in its directory.
	Whiteout
	// Opaque hides the content of its directory in the layers below.
	Opaque
	// Reserved is a leftover of aufs, to be skipped.
	Reserved
)

// ParseOCIName tells what the base name of an entry in a layer's tar means and,
// for a whiteout, which name it deletes. What cannot be a base name, and a
// whiteout of no name, of "." or of "..", is ErrInvalidArgument: taken at its
// word it would delete a directory that it has no business with.
func ParseOCIName(base string) (kind EntryKind, target string, err error) {
	if !isBaseName(base) {
		return Plain, "", invalidArgument("%q is not the base name of a layer entry", base)
	}
	target, isWhiteout := strings.CutPrefix(base, WhiteoutPrefix)
	switch {
	case !isWhiteout:
		return Plain, "", nil
	case base == OpaqueMarker:
		return Opaque, "", nil
	case strings.HasPrefix(base, ReservedPrefix):
		return Reserved, "", nil
	case !isBaseName(target):
		return Plain, "", invalidArgument("the whiteout %q names nothing that can be deleted", base)
	}
	return Whiteout, target, nil
}

func isBaseName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}

// IsWhiteout tells whether this is overlay's whiteout: a character device 0:0.
func IsWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// MakeWhiteout makes the whiteout of name in the directory dirfd. It needs no
// privilege since Linux 5.8, also in a user namespace. A whiteout that is there
// already is no error, anything else of that name is ErrAlreadyExists.
//
// The directory wants an origin mark too (MarkOrigin): without it the kernel
// lists the name, and finds nothing under it, wherever the directory is not
// merged with another one.
func MakeWhiteout(dirfd int, name string) error {
	if !isBaseName(name) {
		return invalidArgument("%q is not a name to make a whiteout of", name)
	}
	err := unix.Mknodat(dirfd, name, unix.S_IFCHR, 0)
	if errors.Is(err, unix.EEXIST) && whiteoutAt(dirfd, name) {
		return nil
	}
	if err != nil {
		return sysError(fmt.Sprintf("make the whiteout of %q", name), err)
	}
	return nil
}

func whiteoutAt(dirfd int, name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && IsWhiteout(&st)
}
