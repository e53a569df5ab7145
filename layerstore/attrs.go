// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// RootAttrs is the metadata of a layer's own directory. The root directory of
// an overlay mount shows the metadata of its topmost directory, so a new
// upperdir takes over what the chain below it shows.
type RootAttrs struct {
	UID, GID uint32
	Mode     uint32 // permission bits, setuid, setgid and sticky
	xattrs   map[string][]byte
}

// DefaultAttrs is the root of a chain without layers: 0755, owned by root.
func DefaultAttrs() RootAttrs { return RootAttrs{Mode: rootMode} }

// IsDefault says whether the directory looks like one nobody changed.
func (a RootAttrs) IsDefault() bool {
	if owner, ok := a.xattrs[overrideAttr]; ok {
		return string(owner) == defaultOwner && len(a.xattrs) == 1
	}
	return a.UID == 0 && a.GID == 0 && a.Mode == rootMode && len(a.xattrs) == 0
}

// LayerAttrs reads the attributes of layer n's directory.
func (s *Store) LayerAttrs(n uint64) (_ RootAttrs, err error) {
	dir, err := openDir(int(s.layers.Fd()), name(n)+"/"+fsName)
	if err != nil {
		return RootAttrs{}, s.rootError(err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	a, err := s.readAttrs(dir)
	return a, s.rootError(err)
}

func (s *Store) readAttrs(dir *os.File) (RootAttrs, error) {
	a, err := readAttrs(dir)
	if err != nil || !s.overrideStat {
		return a, err
	}
	return overrideAttrs(a.xattrs), nil
}

func readAttrs(dir *os.File) (RootAttrs, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return RootAttrs{}, err
	}
	a := RootAttrs{UID: st.Uid, GID: st.Gid, Mode: st.Mode & 0o7777}
	names, err := listXattrs(dir)
	if err != nil {
		return RootAttrs{}, err
	}
	for _, attr := range names {
		if !isCopied(attr) {
			continue
		}
		v, err := getXattr(dir, attr)
		if err != nil {
			return RootAttrs{}, fmt.Errorf("read %s of %s: %w", attr, dir.Name(), err)
		}
		if a.xattrs == nil {
			a.xattrs = map[string][]byte{}
		}
		a.xattrs[attr] = v
	}
	return a, nil
}

// isCopied leaves out what the overlay driver and the security modules of the
// host keep on directories: it belongs to the one it is on.
func isCopied(attr string) bool {
	switch {
	case strings.HasPrefix(attr, "trusted.overlay."), strings.HasPrefix(attr, "user.overlay."), strings.HasPrefix(attr, fuseAttrs):
		return false
	case strings.HasPrefix(attr, "user."), strings.HasPrefix(attr, "trusted."), strings.HasPrefix(attr, "system.posix_acl_"):
		return true
	}
	return false
}

func (a RootAttrs) apply(dir *os.File) error {
	fd := int(dir.Fd())
	if a.UID != 0 || a.GID != 0 {
		if err := unix.Fchown(fd, int(a.UID), int(a.GID)); err != nil {
			return fmt.Errorf("give %s to %d:%d: %w", dir.Name(), a.UID, a.GID, err)
		}
	}
	for attr, v := range a.xattrs {
		err := unix.Fsetxattr(fd, attr, v, 0)
		if errors.Is(err, unix.ENOTSUP) && a.xattrs[overrideAttr] != nil {
			continue // the user was warned when the root was opened
		}
		if err != nil {
			return fmt.Errorf("set %s on %s: %w", attr, dir.Name(), err)
		}
	}
	if a.Mode == rootMode {
		return nil
	}
	return unix.Fchmod(fd, a.Mode)
}

func listXattrs(f *os.File) ([]string, error) {
	b, err := growing(func(b []byte) (int, error) { return unix.Flistxattr(int(f.Fd()), b) })
	if errors.Is(err, unix.ENOTSUP) || len(b) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00"), nil
}

func getXattr(f *os.File, attr string) ([]byte, error) {
	return growing(func(b []byte) (int, error) { return unix.Fgetxattr(int(f.Fd()), attr, b) })
}

// growing calls fn with a buffer that is large enough, however the value
// changes between asking for its size and reading it.
func growing(fn func([]byte) (int, error)) ([]byte, error) {
	for {
		size, err := fn(nil)
		if err != nil || size == 0 {
			return nil, err
		}
		b := make([]byte, size)
		n, err := fn(b)
		if errors.Is(err, unix.ERANGE) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return b[:n], nil
	}
}
