// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// overrideStat keeps owner, mode and type of a file that an ordinary user made:
// "UID:GID:MODE:TYPE", the mode in octal. fuse-overlayfs and containers/storage
// read it.
const overrideStat = "user.containers.override_stat"

// overrideSecurity is put before the names of attributes that only a privileged
// process can set, file capabilities that is. fuse-overlayfs 1.14 and later take it
// away again.
const overrideSecurity = "user.containers."

// What a file must allow its real owner, so that the attribute can be read.
const (
	overrideFileMode = 0o600
	overrideDirMode  = 0o700
)

func (e *entry) overrideValue() []byte {
	return fmt.Appendf(nil, "%d:%d:%04o:%s", e.uid, e.gid, e.mode, e.overrideType())
}

func (e *entry) overrideType() string {
	switch e.typ {
	case typeDir:
		return "dir"
	case typeFifo:
		return "pipe"
	case typeBlock:
		return fmt.Sprintf("block-%d-%d", e.major, e.minor)
	case typeChar:
		return fmt.Sprintf("char-%d-%d", e.major, e.minor)
	}
	return "file"
}

// overrideFile is metadata.file for files of an ordinary user. The attribute
// comes before the mode, which can take the right to set it away.
func (m *metadata) overrideFile(fd int, e *entry) error {
	if err := m.setOverride(fd, e); err != nil {
		return err
	}
	err := m.xattrs(e, func(key string, value []byte) error {
		if key == capabilityXattr {
			key = overrideSecurity + key
		}
		return unix.Fsetxattr(fd, key, value, 0)
	})
	if err != nil {
		return err
	}
	mode := e.mode&0o777 | overrideFileMode
	if e.typ == typeDir {
		mode |= overrideDirMode
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return fmt.Errorf("set its mode: %w", err)
	}
	return setTimes(fd, e.mtime)
}

func (m *metadata) setOverride(fd int, e *entry) error {
	err := unix.Fsetxattr(fd, overrideStat, e.overrideValue(), 0)
	if errors.Is(err, unix.ENOTSUP) {
		m.warn(noXattrs, "the file system has no user attributes: owners and modes of the layer are not kept")
		return nil
	}
	if err != nil {
		return fmt.Errorf("set %s: %w", overrideStat, err)
	}
	return nil
}

// newDir describes a directory that no entry says anything of.
func newDir(path string) *entry { return &entry{typ: typeDir, name: path, mode: 0o755} }

// overrideNode is metadata.node for files of an ordinary user: links, which can
// have no attribute, and further names of files, which are set like the first.
func (m *metadata) overrideNode(dirfd int, name string, e *entry) (err error) {
	if e.typ == typeSymlink {
		ts := timespecs(e.mtime)
		return unix.UtimesNanoAt(dirfd, name, ts[:], unix.AT_SYMLINK_NOFOLLOW)
	}
	fd, err := openPlain(dirfd, name)
	if errors.Is(err, unix.ELOOP) {
		// A further name of a link: what the entry says of its time holds.
		ts := timespecs(e.mtime)
		return unix.UtimesNanoAt(dirfd, name, ts[:], unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if e.typ == typeLink {
		if e, err = m.linked(fd, e); err != nil {
			return err
		}
	}
	return m.overrideFile(fd, e)
}

// linked is a hard link's entry for the file that it is one more name of, which may
// be recorded as something else than a regular file.
func (m *metadata) linked(fd int, e *entry) (*entry, error) {
	known, err := readOverride(fd)
	if err != nil || known == nil || known.typ == 0 {
		return e, err
	}
	same := *e
	same.typ, same.major, same.minor = known.typ, known.major, known.minor
	return &same, nil
}

// openPlain opens a file without following it or waiting for it.
func openPlain(dirfd int, name string) (int, error) {
	return unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
}
