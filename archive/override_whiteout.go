// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"errors"
	"strings"

	"github.com/strata-snapshotter/strata/overlayutil"
	"golang.org/x/sys/unix"
)

// A whiteout that needs no privilege is two empty files with the whiteout attribute:
// NAME and .wh.NAME. The kernel (6.8 and later, userxattr) hides both, as each is
// the whiteout of its own name. fuse-overlayfs does not know the attribute; it goes by
// the second name, and hides both as well.

// makeOverrideWhiteout makes the whiteout of name, of which nothing is there, and
// returns how many files that took.
func (m *metadata) makeOverrideWhiteout(dirfd int, name string) (made int64, err error) {
	for _, base := range []string{name, overlayutil.WhiteoutPrefix + name} {
		err := m.ns.MakeXattrWhiteout(dirfd, base)
		switch {
		case err == nil, errors.Is(err, unix.EEXIST) && base != name:
		case errors.Is(err, unix.ENOTSUP): // the file was made
			m.warn(noXattrs, "the file system has no user attributes: owners and modes of the layer are not kept")
		case errors.Is(err, unix.ENAMETOOLONG) && base != name:
			return made, nil // the kernel alone can hide it
		default:
			return made, err
		}
		made++
	}
	return made, m.unsupported(m.ns.MarkOrigin(dirfd))
}

// unsupported takes it that the file system has no attributes: that was warned of.
func (m *metadata) unsupported(err error) error {
	if m.override && errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return err
}

// setOpaque hides the directory of that name in the layers below. Where there are no
// attributes, it is said by a file, which fuse-overlayfs and this package read.
func (m *metadata) setOpaque(dirfd int) error {
	err := m.ns.SetOpaque(dirfd)
	if !m.override || !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	m.markers++
	fd, err := unix.Openat(dirfd, overlayutil.OpaqueMarker, unix.O_WRONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, overrideFileMode)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// dropCompanion removes the second file of a whiteout of name, if there is one.
func dropCompanion(dirfd int, name string) error {
	err := unix.Unlinkat(dirfd, overlayutil.WhiteoutPrefix+name, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENAMETOOLONG) {
		return nil
	}
	return err
}

func hasCompanion(dirfd int, name string) bool {
	return isThere(dirfd, overlayutil.WhiteoutPrefix+name)
}

func isThere(dirfd int, name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// isOverrideWhiteout: an empty file that has the attribute or, written where there are
// none, a companion.
func isOverrideWhiteout(dirfd int, base string, st *unix.Stat_t) bool {
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != 0 {
		return false
	}
	return isXattrWhiteout(dirfd, base, st) || hasCompanion(dirfd, base)
}

// fuseOpaque is where fuse-overlayfs notes that a directory is opaque.
const fuseOpaque = fuseOverlayfs + "opaque"

// isOpaqueDir tells whether a directory of a layer, or of an upper directory that
// fuse-overlayfs wrote, hides those of the layers below.
func isOpaqueDir(fd int) (bool, error) {
	// Run by root, fuse-overlayfs writes the one that only root can read.
	for _, ns := range []overlayutil.XattrNamespace{overlayutil.User, overlayutil.Trusted} {
		if opaque, err := ns.IsOpaque(fd); err != nil || opaque {
			return opaque, err
		}
	}
	var value [2]byte
	n, err := unix.Fgetxattr(fd, fuseOpaque, value[:])
	if err == nil && n == 1 && value[0] == 'y' {
		return true, nil
	}
	return isThere(fd, overlayutil.OpaqueMarker), nil
}

// isMarkerName tells whether a name in a layer's directory is no file of the image.
func isMarkerName(name string) bool { return strings.HasPrefix(name, overlayutil.WhiteoutPrefix) }
