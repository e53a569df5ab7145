// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/userns"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/overlayutil"
)

// metadata writes what an entry says of a file to the file system.
type metadata struct {
	ns       overlayutil.XattrNamespace
	uid, gid uint32 // what new files belong to by themselves
	userns   bool
	override bool
	markers  int64 // files that say that a directory is opaque
	warn     func(kind, text string)
}

func newMetadata(opts Options, warn func(kind, text string)) *metadata {
	return &metadata{
		ns: opts.Xattrs, override: opts.OverrideStat, warn: warn,
		uid: uint32(unix.Geteuid()), gid: uint32(unix.Getegid()),
		userns: userns.RunningInUserNS(),
	}
}

// file sets owner, attributes, mode and time of an open file. The owner comes
// first: changing it takes setuid and capabilities away. created is the mode the
// file was made with.
func (m *metadata) file(fd int, e *entry, created uint32) error {
	if m.override {
		return m.overrideFile(fd, e)
	}
	if e.uid != m.uid || e.gid != m.gid || created == unknownMode {
		if err := unix.Fchown(fd, int(e.uid), int(e.gid)); err != nil {
			return m.ownerError(e, err)
		}
		created &^= 0o6000
	}
	if err := m.xattrs(e, func(key string, value []byte) error { return unix.Fsetxattr(fd, key, value, 0) }); err != nil {
		return err
	}
	if e.mode != created {
		if err := unix.Fchmod(fd, e.mode); err != nil {
			return fmt.Errorf("set its mode: %w", err)
		}
	}
	return setTimes(fd, e.mtime)
}

// bare takes from a new file what the directory it was made in handed down.
func (m *metadata) bare(fd int) error {
	for _, acl := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
		err := unix.Fremovexattr(fd, acl)
		if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP) {
			return err
		}
	}
	return unix.Fchown(fd, int(m.uid), int(m.gid))
}

// node sets the metadata of what can't, or should not, be opened: links,
// devices, pipes, and further names of files. Nothing is followed.
func (m *metadata) node(dirfd int, name string, e *entry) error {
	if m.override {
		return m.overrideNode(dirfd, name, e)
	}
	if err := unix.Fchownat(dirfd, name, int(e.uid), int(e.gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return m.ownerError(e, err)
	}
	// A link below /proc/self/fd leads to the very directory; name itself is
	// not followed by lsetxattr(2).
	if len(e.xattrs) > 0 {
		at := "/proc/self/fd/" + strconv.Itoa(dirfd) + "/" + name
		if err := m.xattrs(e, func(key string, value []byte) error { return unix.Lsetxattr(at, key, value, 0) }); err != nil {
			return err
		}
	}
	if e.typ != typeSymlink {
		if err := chmodAt(dirfd, name, e.mode); err != nil {
			return fmt.Errorf("set its mode: %w", err)
		}
	}
	ts := timespecs(e.mtime)
	if err := unix.UtimesNanoAt(dirfd, name, ts[:], unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set its time: %w", err)
	}
	return nil
}

// chmodAt changes the mode of a file that is no link, by a descriptor that does
// not open it. A link, which has no mode, is left alone.
func chmodAt(dirfd int, name string, mode uint32) (err error) {
	fd, err := unix.Openat(dirfd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return err
	}
	if st.Mode&0o7777 == mode {
		return nil
	}
	return unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode)
}

// ErrUnmappedID is in the chain of the error for an entry whose owner has no id in this
// user namespace. The layer can be extracted in one with more ids (user_namespaces(7)).
var ErrUnmappedID = fmt.Errorf("the user namespace has too few ids: %w", errdefs.ErrInvalidArgument)

func (m *metadata) ownerError(e *entry, err error) error {
	if errors.Is(err, unix.EINVAL) && m.userns {
		return fmt.Errorf("layer tar: entry %s: ids %d:%d are not mapped in this user namespace: add subordinate ids in /etc/subuid and /etc/subgid: %w",
			quote(e.name), e.uid, e.gid, ErrUnmappedID)
	}
	return fmt.Errorf("give it to %d:%d: %w", e.uid, e.gid, err)
}

// xattrs sets the attributes a layer may bring. Overlay's own marks and those of
// the administrator's namespace are not for layers to set; what the file system,
// or the kind of file, can't have is left out with a warning, as containerd does.
func (m *metadata) xattrs(e *entry, set func(key string, value []byte) error) error {
	for _, x := range e.xattrs {
		if !m.allowed(x.key) {
			m.warn("xattr "+x.key, fmt.Sprintf("attribute %s of %s is not for layers to set and left out", quote(x.key), quote(e.name)))
			continue
		}
		err := set(x.key, x.value)
		switch {
		case err == nil:
		case errors.Is(err, unix.ENOTSUP):
			m.warn(noXattrs, fmt.Sprintf("the file system does not keep attribute %s of %s", quote(x.key), quote(e.name)))
		case errors.Is(err, unix.EPERM) && (e.noUserXattrs(x.key) || m.userns || m.override):
			m.warn("xattr "+x.key, fmt.Sprintf("%s can't have attribute %s here", quote(e.name), quote(x.key)))
		case errors.Is(err, unix.ERANGE), errors.Is(err, unix.EINVAL), errors.Is(err, unix.E2BIG):
			return bad("entry %s: attribute %s can't be set: %v", quote(e.name), quote(x.key), err)
		default:
			return fmt.Errorf("set attribute %s: %w", quote(x.key), err)
		}
	}
	return nil
}

func (m *metadata) allowed(key string) bool {
	if strings.HasPrefix(key, "trusted.") {
		return false
	}
	if m.ns != overlayutil.User {
		return true
	}
	return !m.ns.IsOverlayXattr(key) && !strings.HasPrefix(key, fuseOverlayfs) && key != overrideStat &&
		!strings.HasPrefix(key, overrideSecurity+"security.") && !strings.HasPrefix(key, "security.fuseoverlayfs.")
}

const (
	capabilityXattr = "security.capability"
	// noXattrs is the kind of all warnings of a file system without attributes.
	noXattrs = "no xattrs"
)

// fuseOverlayfs begins fuse-overlayfs' own marks, which it reads where the kernel
// can't mount an overlay for an ordinary user.
const fuseOverlayfs = "user.fuseoverlayfs."

// noUserXattrs: see xattr(7), only files and directories have user attributes.
func (e *entry) noUserXattrs(key string) bool {
	return strings.HasPrefix(key, "user.") && e.typ != typeRegular && e.typ != typeDir
}

// The kernel keeps times in 64 bits; file systems clamp by themselves.
func timespecs(t stamp) [2]unix.Timespec {
	ts := unix.Timespec{Sec: t.sec, Nsec: t.nsec}
	return [2]unix.Timespec{ts, ts}
}

// base is the last component of a clean path, dir what precedes it ("" for none).
func splitLast(name string) (dir, base string) {
	dir, base = path.Split(name)
	return strings.TrimSuffix(dir, "/"), base
}
