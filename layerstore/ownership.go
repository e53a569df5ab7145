// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/durable"
)

// ownershipFile is in a root whose layers keep owners and modes in attributes, and
// names that form. The layers mean something else to who does not know it.
const ownershipFile = "ownership"

// OverrideStat is what ownershipFile holds: user.containers.override_stat.
const OverrideStat = "override-stat"

const (
	overrideAttr  = "user.containers.override_stat"
	defaultOwner  = "0:0:0755:dir"
	fuseAttrs     = "user.fuseoverlayfs."
	fuseOwnerAttr = fuseAttrs + "override_stat"
)

// checkOwnership notes the form in a new root, and refuses one of the other form.
func (s *Store) checkOwnership() error {
	noted, err := readOwnership(s.root)
	if err != nil {
		return err
	}
	if noted != "" && noted != OverrideStat {
		return fmt.Errorf("the layers of %s keep their owners as %q, which this program does not know: use the newer Strata that wrote it: %w", s.path, noted, errdefs.ErrFailedPrecondition)
	}
	if s.overrideStat == (noted == OverrideStat) {
		return nil
	}
	used, err := exists(s.root, databaseName)
	switch {
	case err != nil:
		return err
	case noted != "":
		return fmt.Errorf("%s was made with ownership = %q and can't be used with %q: set it, or use another root: %w", s.path, OverrideStat, "real", errdefs.ErrFailedPrecondition)
	case used:
		return fmt.Errorf("%s was made with ownership = %q and can't be used with %q: set it, or use another root: %w", s.path, "real", OverrideStat, errdefs.ErrFailedPrecondition)
	}
	return durable.WriteFile(s.root, ownershipFile, []byte(OverrideStat+"\n"), 0o600)
}

// readOwnership reads the note; "" if there is none.
func readOwnership(root *os.File) (_ string, err error) {
	fd, err := unix.Openat(int(root.Fd()), ownershipFile, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("open %s/%s: %w", root.Name(), ownershipFile, err)
	}
	f := os.NewFile(uintptr(fd), ownershipFile)
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := io.ReadAll(io.LimitReader(f, 100))
	if err == nil && len(b) == 0 {
		err = fmt.Errorf("%s/%s is empty: %w", root.Name(), ownershipFile, errdefs.ErrDataLoss)
	}
	return strings.TrimSpace(string(b)), err
}

// OwnershipOf says in which form an existing root keeps owners: OverrideStat, or ""
// for those of the files. ErrNotFound: there is no such directory.
func OwnershipOf(root string) (_ string, err error) {
	dir, err := openDir(unix.AT_FDCWD, root)
	if errors.Is(err, unix.ENOENT) {
		return "", fmt.Errorf("root %s does not exist: %w", root, errdefs.ErrNotFound)
	}
	if err != nil {
		return "", classify(err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	noted, err := readOwnership(dir)
	return noted, classify(err)
}

// DefaultAttrs is the root of a chain without layers in this store.
func (s *Store) DefaultAttrs() RootAttrs {
	if !s.overrideStat {
		return DefaultAttrs()
	}
	return overrideAttrs(nil)
}

// overrideAttrs is the root of a layer of an ordinary user with the attributes that
// were read; the owner, where a file system has no attributes, is the default.
func overrideAttrs(xattrs map[string][]byte) RootAttrs {
	a := RootAttrs{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Mode: rootMode, xattrs: xattrs}
	if a.xattrs == nil {
		a.xattrs = map[string][]byte{}
	}
	if _, ok := a.xattrs[overrideAttr]; !ok {
		a.xattrs[overrideAttr] = []byte(defaultOwner)
	}
	return a
}

// ForContainer is a for a directory that fuse-overlayfs writes to. It takes the owner of
// such a one from an attribute of its own, and would note that of the real directory
// there if it were missing.
func (a RootAttrs) ForContainer() RootAttrs {
	parts := strings.SplitN(string(a.xattrs[overrideAttr]), ":", 4)
	if len(parts) < 3 {
		return a
	}
	value := parts[0] + ":" + parts[1] + ":4" + parts[2]
	with := a
	with.xattrs = map[string][]byte{fuseOwnerAttr: []byte(value)}
	for name, v := range a.xattrs {
		with.xattrs[name] = v
	}
	return with
}
