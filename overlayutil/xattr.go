// SPDX-License-Identifier: Apache-2.0

package overlayutil

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// XattrNamespace is the prefix of the extended attributes in which overlay keeps
// its own notes about files and directories. Descriptors given to its methods
// must be open for reading: with O_PATH the kernel refuses them.
type XattrNamespace string

const (
	// Trusted is the namespace of an overlay mounted with privilege.
	Trusted XattrNamespace = "trusted.overlay."
	// User is the namespace of an overlay mounted with userxattr, which is how it
	// is done in a user namespace.
	User XattrNamespace = "user.overlay."
)

const (
	opaqueYes = "y" // hides the directory below
	opaqueX   = "x" // may hold whiteouts in xattr form (Linux 6.8 and later)
)

// SetOpaque makes the directory hide the one of the layers below. The kernel
// ignores it on a layer's root (see Lowers).
func (ns XattrNamespace) SetOpaque(fd int) error {
	return ns.set(fd, "opaque", opaqueYes)
}

// IsOpaque tells whether the directory hides the one of the layers below.
func (ns XattrNamespace) IsOpaque(fd int) (bool, error) {
	value, _, err := ns.get(fd, "opaque")
	return value == opaqueYes, err
}

// MarkOrigin marks a directory that whiteouts are in as one that comes from a
// lower layer, with an empty origin. Only then does the kernel filter the
// whiteouts from its listing where it is not merged, and can a container remove
// the directory.
func (ns XattrNamespace) MarkOrigin(fd int) error {
	return ns.set(fd, "origin", "")
}

// HasOrigin tells whether the directory has an origin mark.
func (ns XattrNamespace) HasOrigin(fd int) (bool, error) {
	_, found, err := ns.get(fd, "origin")
	return found, err
}

// Redirected tells whether the file or directory stands for another one of the
// layers below (redirect, metacopy). A layer with such an entry means something
// else over other parents: it must never be shared, nor left out of a stack as a
// duplicate.
func (ns XattrNamespace) Redirected(fd int) (bool, error) {
	_, redirect, err := ns.get(fd, "redirect")
	if err != nil || redirect {
		return redirect, err
	}
	_, metacopy, err := ns.get(fd, "metacopy")
	return metacopy, err
}

// IsOverlayXattr tells whether an attribute's name is one that overlay would
// take for its own. A layer's tar must not set those.
func (ns XattrNamespace) IsOverlayXattr(name string) bool {
	return strings.HasPrefix(name, string(ns))
}

// MakeXattrWhiteout makes the whiteout of name in the directory dirfd as an
// empty regular file with an attribute, and marks the directory as one that
// holds such files. It needs no device node, but Linux 6.8 to be honoured, and
// only in lower directories. A name that exists is ErrAlreadyExists. The
// directory wants an origin mark for it as for MakeWhiteout.
func (ns XattrNamespace) MakeXattrWhiteout(dirfd int, name string) (err error) {
	if !isBaseName(name) {
		return invalidArgument("%q is not a name to make a whiteout of", name)
	}
	flags := unix.O_CREAT | unix.O_EXCL | unix.O_WRONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(dirfd, name, flags, 0o600)
	if err != nil {
		return sysError(fmt.Sprintf("make the whiteout of %q", name), err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if err := ns.set(fd, "whiteout", opaqueYes); err != nil {
		return err
	}
	return ns.holdWhiteouts(dirfd)
}

// holdWhiteouts makes the kernel look for xattr whiteouts when it lists the
// directory. An opaque directory stays opaque: there is nothing left to white
// out in it.
func (ns XattrNamespace) holdWhiteouts(dirfd int) error {
	opaque, err := ns.IsOpaque(dirfd)
	if err != nil || opaque {
		return err
	}
	return ns.set(dirfd, "opaque", opaqueX)
}

func (ns XattrNamespace) set(fd int, key, value string) error {
	name := string(ns) + key
	if err := unix.Fsetxattr(fd, name, []byte(value), 0); err != nil {
		return sysError("set the extended attribute "+name, err)
	}
	return nil
}

// get reads a short attribute. A value too long to be one that matters is
// returned as "", found. A file system without extended attributes has none.
func (ns XattrNamespace) get(fd int, key string) (value string, found bool, err error) {
	name := string(ns) + key
	buf := make([]byte, 8)
	n, err := unix.Fgetxattr(fd, name, buf)
	switch {
	case err == nil:
		return string(buf[:n]), true, nil
	case errors.Is(err, unix.ERANGE):
		return "", true, nil
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.EOPNOTSUPP):
		return "", false, nil
	}
	return "", false, sysError("read the extended attribute "+name, err)
}
