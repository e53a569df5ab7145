// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/layertest"
)

// containerLayer begins the names of layers that containers wrote.
const containerLayer = "written-"

// container writes into a new snapshot and commits or removes it, or goes on.
func (c *client) container(ctx context.Context) error {
	parent := c.registry.pick(c.random)
	if parent == nil {
		return nil
	}
	defer c.registry.unpin(parent)
	key := c.registry.ask(&snapshot{name: c.registry.name("container"), parent: parent, pins: 1})
	defer c.registry.unpin(key)
	mounts, err := c.daemon.sn.Prepare(ctx, key.name, parent.name)
	if err != nil {
		return fmt.Errorf("prepare a container's snapshot: %w", err)
	}
	c.registry.set(key, active)
	l, err := c.write(key.name, mounts)
	if err != nil {
		return fmt.Errorf("write to %s: %w", key.name, err)
	}
	chain := slices.Concat(parent.chain, []*layer{l})
	c.registry.wrote(key, chain)
	if c.random.IntN(3) == 0 {
		return nil
	}
	s := c.registry.ask(&snapshot{name: c.registry.name("committed"), chain: chain, parent: parent, from: key})
	c.registry.set(key, leaving)
	if err := c.daemon.sn.Commit(ctx, s.name, key.name); err != nil {
		return fmt.Errorf("commit a container's snapshot: %w", err)
	}
	c.registry.unpin(c.registry.commit(s))
	return nil
}

// write writes through a mount, or where a mount would lead to: unmounting an overlay
// writes all that is below, so that nothing would be left for the Commit to do.
func (c *client) write(name string, mounts []mount.Mount) (l *layer, err error) {
	if upper := upperOf(mounts); upper != "" && c.random.IntN(3) > 0 {
		l := c.written(name, false)
		return l, writeEntries(upper, l.entries)
	}
	dir, err := os.MkdirTemp(c.mounts, "container-")
	if err != nil {
		return nil, err
	}
	if err := mount.All(mounts, dir); err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	defer func() { err = errors.Join(err, mount.UnmountAll(dir, unix.UMOUNT_NOFOLLOW), os.Remove(dir)) }()
	l = c.written(name, true)
	return l, writeEntries(dir, l.entries)
}

func upperOf(mounts []mount.Mount) string {
	for _, o := range mounts[0].Options {
		if upper, ok := strings.CutPrefix(o, "upperdir="); ok {
			return upper
		}
	}
	return ""
}

// written is what a container writes. Only through a mount can it change what is in
// directories of the layers below, as nothing else copies them up.
func (c *client) written(name string, mounted bool) *layer {
	g := &layertest.Generator{Rand: c.random}
	files := 1 + g.IntN(40)
	if g.IntN(8) == 0 {
		files = 700
	}
	dir := "written-" + strings.Split(name, "/")[1]
	l := layertest.Layer{g.File("root-2")}
	if mounted {
		l = append(l, layertest.Whiteout("root-3"))
	}
	l = append(l, layertest.Dir(dir).Owner(3, 4).Perm(0o711))
	for i := range files {
		l = append(l, g.File(fmt.Sprintf("%s/%d", dir, i)))
	}
	first := l[len(l)-1]
	link := first
	link.Type, link.Name, link.Link, link.Data = layertest.TypeHardlink, dir+"/link", first.Name, ""
	return &layer{name: containerLayer + name, entries: append(l, link, layertest.Symlink(dir+"/sym", "anywhere").At(5, 6))}
}

// writeEntries does what a program would do to have entries in dir: the directories'
// own times last.
func writeEntries(dir string, entries layertest.Layer) error {
	for _, e := range entries {
		if err := writeEntry(dir, e); err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
	}
	for _, e := range entries {
		if e.Type != layertest.TypeDir {
			continue
		}
		if err := setTime(filepath.Join(dir, e.Name), e); err != nil {
			return err
		}
	}
	return nil
}

func writeEntry(dir string, e layertest.Entry) error {
	path := filepath.Join(dir, e.Name)
	if base, ok := strings.CutPrefix(e.Name, ".wh."); ok {
		return removeIfThere(filepath.Join(dir, base))
	}
	if err := removeIfThere(path); err != nil {
		return err
	}
	if err := create(dir, path, e); err != nil {
		return err
	}
	if err := os.Lchown(path, e.UID, e.GID); err != nil {
		return err
	}
	if e.Type != layertest.TypeSymlink {
		if err := unix.Chmod(path, uint32(e.Mode)); err != nil {
			return err
		}
	}
	for name, value := range e.Xattrs {
		if err := unix.Lsetxattr(path, name, value, 0); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return setTime(path, e)
}

func create(dir, path string, e layertest.Entry) error {
	switch e.Type {
	case layertest.TypeDir:
		return os.Mkdir(path, 0o700)
	case layertest.TypeSymlink:
		return os.Symlink(e.Link, path)
	case layertest.TypeHardlink:
		return os.Link(filepath.Join(dir, e.Link), path)
	}
	return os.WriteFile(path, []byte(e.Data), 0o600)
}

func removeIfThere(path string) error {
	err := unix.Unlink(path)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func setTime(path string, e layertest.Entry) error {
	ts := unix.Timespec{Sec: e.Mtime, Nsec: e.Nsec}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "set the time of", Path: path, Err: err}
	}
	return nil
}
