// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Below is where Answer finds its answers, and leaves them.
type Below struct {
	// Merged is the root of a view of the layers below. nil: they are Options.Lowers.
	Merged *os.File
	// Layer is the layer that asks.
	Layer *os.File
	// Patch is an empty directory: a layer of directories only, which goes on top
	// of the one that asks.
	Patch *os.File
}

// Answer asks the layers below for what a layer that was extracted alone needs,
// and writes what it learns of directories into the patch. answer is a digest of all
// that is in it then, so patches with the same are the same; empty if there is nothing.
//
// mounted is the reason why only ApplyOnto will do: a link is where the layer has
// a directory, so that its files belong elsewhere. ErrInvalidArgument: a file is.
func Answer(ctx context.Context, needs Needs, below Below, opts Options) (mounted string, answer digest.Digest, err error) {
	if needs.Mounted != "" {
		return needs.Mounted, "", nil
	}
	opts = opts.withDefaults()
	q := &asking{Below: below, view: mountedView{below.Merged}, opts: opts, meta: newMetadata(opts, warnOnce(opts.Warn)), gone: map[string]bool{}, made: map[string]bool{}}
	if below.Merged == nil {
		q.view = newStack(opts.Lowers)
	}
	err = onThread(func() error {
		err := q.all(ctx, needs)
		if err == nil && len(q.made) > 0 {
			answer, err = q.digest()
		}
		return err
	})
	var m *needsMounted
	if errors.As(err, &m) {
		return m.reason, "", nil
	}
	return "", answer, classify(err)
}

// view shows the layers below, or one layer. Paths have no links: one that leads
// through a link or a file is not there.
type view interface {
	stat(path string) (unix.Stat_t, error)
	// open opens a directory.
	open(path string) (int, error)
}

// mountedView is a directory that shows them.
type mountedView struct{ root *os.File }

func (v mountedView) stat(path string) (st unix.Stat_t, err error) {
	dir, base := splitLast(path)
	fd, err := v.open("./" + dir)
	if err != nil {
		return st, err
	}
	err = unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, errors.Join(err, unix.Close(fd))
}

func (v mountedView) open(path string) (int, error) { return openBeneath(int(v.root.Fd()), path) }

type asking struct {
	Below
	view view
	opts Options
	meta *metadata
	gone map[string]bool // not below: so nothing in it is
	made map[string]bool // directories of the patch
}

// all asks for parents before children: what look concludes of a directory relies
// on what was asked of those it is in.
func (q *asking) all(ctx context.Context, needs Needs) error {
	paths := slices.Concat(needs.Dirs, needs.Checks)
	slices.Sort(paths)
	there := map[string]bool{}
	for _, path := range slices.Compact(paths) {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		if there[path], err = q.look(path); err != nil {
			return err
		}
	}
	var found []string
	for _, path := range needs.Dirs {
		if there[path] {
			found = append(found, path)
		}
	}
	return q.write(found)
}

// write makes the patch: the directories found, and those they are in, which are
// directories of the layer and look like them.
func (q *asking) write(found []string) error {
	from := map[string]view{}
	for _, path := range found {
		if err := q.make(path); err != nil {
			return err
		}
		from[path] = q.view
	}
	if len(found) > 0 && q.opts.OverrideStat {
		if err := q.meta.setOverride(int(q.Patch.Fd()), newDir("")); err != nil {
			return err
		}
	}
	// Children change the times of their directories: the deepest come first.
	paths := slices.Sorted(maps.Keys(q.made))
	for _, path := range slices.Backward(paths) {
		source := from[path]
		if source == nil {
			source = mountedView{q.Layer}
		}
		if err := q.copyMeta(source, path); err != nil {
			return err
		}
	}
	return nil
}

// look says whether path is a directory below.
func (q *asking) look(path string) (bool, error) {
	if dir, _ := splitLast(path); q.gone[dir] {
		q.gone[path] = true
		return false, nil
	}
	st, err := q.view.stat(path)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
		// A link or a file on the way is none that was asked for: the layer put a
		// directory with an entry of its own in its place first.
		q.gone[path] = true
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for directory %s below: %w", quote(path), err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return true, nil
	case unix.S_IFLNK:
		return false, mounted("%s is a link in the layers below", quote(path))
	}
	return false, bad("%s is no directory in the layers below, but entries of the layer are in it", quote(path))
}

// make makes path, and what it is in, in the patch.
func (q *asking) make(path string) error {
	for i := 0; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		p := path[:i]
		if q.made[p] {
			continue
		}
		dir, base := splitLast(p)
		fd, err := openBeneath(int(q.Patch.Fd()), "./"+dir)
		if err != nil {
			return err
		}
		err = unix.Mkdirat(fd, base, 0o755)
		if err := errors.Join(err, unix.Close(fd)); err != nil {
			return fmt.Errorf("patch directory %s: %w", quote(p), err)
		}
		q.made[p] = true
	}
	return nil
}

// copyMeta gives a directory of the patch what the one in source has.
func (q *asking) copyMeta(source view, path string) (err error) {
	from, err := source.open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(from)) }()
	to, err := openBeneath(int(q.Patch.Fd()), path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(to)) }()
	e, err := q.meta.entryOf(from, path)
	if err != nil {
		return err
	}
	return q.meta.file(to, e, 0o755)
}

// entryOf describes an open directory, or with override-stat any file that can be
// opened, as an entry would.
func (m *metadata) entryOf(fd int, path string) (*entry, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if m.override {
		known, err := readOverride(fd)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", quote(path), err)
		}
		if known != nil {
			known.apply(&st)
		}
	}
	e := &entry{
		typ: typeOf(&st), name: path, mode: st.Mode & 0o7777, uid: st.Uid, gid: st.Gid,
		major: unix.Major(st.Rdev), minor: unix.Minor(st.Rdev),
		mtime: stamp{st.Mtim.Sec, st.Mtim.Nsec},
	}
	names, err := listXattrs(fd)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		key := name
		if m.override && name == overrideSecurity+capabilityXattr {
			key = capabilityXattr
		}
		if !m.allowed(key) || strings.HasPrefix(key, "security.selinux") {
			continue
		}
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		n, err := unix.Fgetxattr(fd, name, value)
		if err != nil {
			return nil, fmt.Errorf("read attribute %s of %s: %w", quote(name), quote(path), err)
		}
		e.xattrs = append(e.xattrs, xattr{key, value[:n]})
	}
	return e, nil
}

func typeOf(st *unix.Stat_t) byte {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return typeDir
	case unix.S_IFIFO:
		return typeFifo
	case unix.S_IFCHR:
		return typeChar
	case unix.S_IFBLK:
		return typeBlock
	}
	return typeRegular
}
