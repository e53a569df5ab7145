// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/strata-snapshotter/strata/overlayutil"
	"golang.org/x/sys/unix"
)

// Adopt makes a layer with OverrideStat of an upper directory that fuse-overlayfs wrote
// to. It keeps owners in an attribute that is not read in lower directories, deletions
// as devices or under a marked name, and gives a file that nothing was said of none of
// them, which as a lower one could not be looked at any more. Nobody else may write to
// the directory meanwhile. It takes time in proportion to the number of entries.
//
// ErrInvalidArgument: an attribute is malformed; the file is named. Others are the file
// system's.
func Adopt(ctx context.Context, dir *os.File, opts Options) error {
	opts.OverrideStat = true
	opts = opts.withDefaults()
	a := &adoption{meta: newMetadata(opts, warnOnce(opts.Warn)), root: dir}
	return classify(onThread(func() error { return a.all(ctx) }))
}

type adoption struct {
	meta *metadata
	root *os.File
	todo []string // directories
	// opaque: the directory that is gone through at the moment
	opaque bool
}

func (a *adoption) all(ctx context.Context) error {
	if err := a.settle(int(a.root.Fd()), ""); err != nil {
		return err
	}
	for a.todo = []string{""}; len(a.todo) > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		path := a.todo[len(a.todo)-1]
		a.todo = a.todo[:len(a.todo)-1]
		if err := a.directory(path); err != nil {
			return fmt.Errorf("directory %s: %w", quote(path), err)
		}
	}
	return nil
}

// directory goes through a directory, whose own time stays.
func (a *adoption) directory(path string) (err error) {
	fd, err := openBeneath(int(a.root.Fd()), "./"+path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	names, err := namesIn(fd)
	if err != nil {
		return err
	}
	// Nothing of the layers below shows in there that a whiteout could hide, and
	// nobody would take it out of listings.
	a.opaque = false
	if path != "" {
		if a.opaque, err = isOpaqueDir(fd); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := a.entry(fd, join(path, name), name); err != nil {
			return fmt.Errorf("%s: %w", quote(name), err)
		}
	}
	return setTimes(fd, stamp{st.Mtim.Sec, st.Mtim.Nsec})
}

func (a *adoption) entry(dir int, path, name string) error {
	if target, marker := strings.CutPrefix(name, overlayutil.WhiteoutPrefix); marker {
		return a.marker(dir, name, target)
	}
	w, st, err := look(dir, name)
	switch {
	case err != nil:
		return err
	case w == whiteout:
		return a.whiteout(dir, name)
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		a.todo = append(a.todo, path)
	case st.Mode&unix.S_IFMT == unix.S_IFLNK, st.Mode&unix.S_IFMT == unix.S_IFSOCK:
		return nil // those can't have the attribute, and readers do not ask for it
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return a.special(dir, name, &st)
	}
	fd, err := openPlain(dir, name)
	if err != nil {
		return err
	}
	return errors.Join(a.settle(fd, path), unix.Close(fd))
}

// special makes of a pipe or a device the regular file that stands for it.
func (a *adoption) special(dir int, name string, st *unix.Stat_t) error {
	if err := removeAll(dir, name); err != nil {
		return err
	}
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, overrideFileMode)
	if err != nil {
		return err
	}
	e := &entry{
		typ: typeOf(st), name: name, mode: st.Mode & 0o7777, uid: st.Uid, gid: st.Gid,
		major: unix.Major(st.Rdev), minor: unix.Minor(st.Rdev), mtime: stamp{st.Mtim.Sec, st.Mtim.Nsec},
	}
	return errors.Join(a.meta.bare(fd), a.meta.overrideFile(fd, e), unix.Close(fd))
}

// whiteout gives a deletion the form that lower directories have.
func (a *adoption) whiteout(dir int, name string) error {
	if err := errors.Join(removeAll(dir, name), dropCompanion(dir, name)); err != nil {
		return err
	}
	if a.opaque {
		return nil
	}
	_, err := a.meta.makeOverrideWhiteout(dir, name)
	return err
}

// marker is for names that only say something of others.
func (a *adoption) marker(dir int, name, target string) error {
	switch {
	case name == overlayutil.OpaqueMarker:
		if err := a.meta.ns.SetOpaque(dir); err != nil {
			return a.meta.unsupported(err) // it says so by itself
		}
		return removeAll(dir, name)
	case strings.HasPrefix(target, "."):
		return removeAll(dir, name) // .wh..opq, which goes with it
	}
	w, _, err := look(dir, target)
	if err != nil || w != whiteout {
		return errors.Join(err, dropCompanion(dir, target)) // there is a file again
	}
	return a.whiteout(dir, target)
}

// settle gives a file or directory the attribute that says what all of them say, and
// takes those of fuse-overlayfs away.
func (a *adoption) settle(fd int, path string) error {
	e, err := a.meta.entryOf(fd, path)
	if err != nil {
		return err
	}
	if err := a.latest(fd, e); err != nil {
		return fmt.Errorf("%s: %w", quote(path), err)
	}
	names, err := listXattrs(fd)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, fuseOverlayfs) && !overlayutil.Trusted.IsOverlayXattr(name) {
			continue
		}
		if err := unix.Fremovexattr(fd, name); err != nil && !errors.Is(err, unix.ENODATA) {
			return fmt.Errorf("remove attribute %s: %w", quote(name), err)
		}
	}
	e.xattrs = nil // they are there
	return a.meta.overrideFile(fd, e)
}

// latest puts what fuse-overlayfs has noted since over what was there before.
func (a *adoption) latest(fd int, e *entry) error {
	value := make([]byte, maxOverride)
	n, err := unix.Fgetxattr(fd, fuseOverrideStat, value)
	if err == nil {
		var o override
		if o, err = parseOverride(string(value[:n])); err != nil {
			return err
		}
		e.uid, e.gid, e.mode = o.uid, o.gid, o.mode
	} else if !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	if e.typ != typeDir {
		return nil
	}
	opaque, err := isOpaqueDir(fd)
	if err != nil || !opaque || e.name == "" {
		return err
	}
	return a.meta.unsupported(a.meta.ns.SetOpaque(fd))
}
