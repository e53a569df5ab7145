// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// stackGround is an upper directory over layers, of which nothing is mounted. It does
// what an overlay would: directories are copied up before something changes in them,
// and what is deleted of the layers gets a whiteout.
type stackGround struct {
	upper *os.File
	lower *stack
	seen  *seen // which directories hide those below
	meta  *metadata
}

// hides says whether the upper directory shows nothing of the layers at path.
func (g *stackGround) hides(path string) bool {
	n := g.seen
	for rest := path; n != nil && rest != ""; {
		if n.opaque {
			return true
		}
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		n = n.children[name]
	}
	return false
}

// below is lower.find for what the upper directory does not hide.
func (g *stackGround) below(path string) (st unix.Stat_t, layer int, err error) {
	if g.hides(path) {
		return st, -1, unix.ENOENT
	}
	return g.lower.find(path)
}

func (g *stackGround) stat(dir int, path string) (unix.Stat_t, error) {
	_, base := splitLast(path)
	w, st, err := look(dir, base)
	switch {
	case err != nil:
		return st, err
	case w == whiteout:
		return st, unix.ENOENT
	case w != absent:
		return st, nil
	}
	st, _, err = g.below(path)
	return st, err
}

// enter leaves directories closed: one that is only gone through is not copied up.
func (g *stackGround) enter(_ int, at, base string) (fd int, link string, err error) {
	path := join(at, base)
	dir, err := openBeneath(int(g.upper.Fd()), "./"+at)
	if err == nil {
		defer unix.Close(dir) //nolint:errcheck // a descriptor that was not written to
		w, st, err := look(dir, base)
		switch {
		case err != nil:
			return -1, "", err
		case w == whiteout:
			return -1, "", unix.ENOENT
		case w != absent:
			link, err := linkAt(dir, base, &st)
			return -1, link, err
		}
	} else if !errors.Is(err, unix.ENOENT) {
		return -1, "", err
	}
	st, layer, err := g.below(path)
	if err != nil {
		return -1, "", err
	}
	err = g.lower.in(layer, at, func(dir int) (err error) {
		link, err = linkAt(dir, base, &st)
		return err
	})
	return -1, link, err
}

// linkAt returns the link that is there: "" for a directory, unix.EINVAL for a file.
func linkAt(dir int, base string, st *unix.Stat_t) (string, error) {
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return "", nil
	}
	return readLink(dir, base)
}

func (g *stackGround) names(dir int, path string) ([]string, error) {
	own, err := newStack([]*os.File{g.upper}).names(path)
	if err != nil || g.hidesContent(path) {
		return own, err
	}
	below, err := g.lower.names(path)
	if err != nil {
		return nil, err
	}
	listed := map[string]bool{}
	for _, name := range own {
		listed[name] = true
	}
	for _, name := range below {
		if listed[name] {
			continue
		}
		if w, _, err := look(dir, name); err != nil {
			return nil, err
		} else if w == absent {
			own = append(own, name)
		}
	}
	return own, nil
}

func (g *stackGround) hidesContent(path string) bool {
	return g.hides(path + "/.")
}

func (g *stackGround) remove(dir int, path string) error {
	_, base := splitLast(path)
	if err := errors.Join(removeAll(dir, base), dropCompanion(dir, base)); err != nil {
		return err
	}
	_, _, err := g.below(path)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err == nil {
		_, err = g.meta.makeOverrideWhiteout(dir, base)
	}
	return err
}

func (g *stackGround) vacate(dir int, path string) (opaque bool, err error) {
	_, base := splitLast(path)
	w, _, err := look(dir, base)
	if err != nil || w != whiteout {
		return false, err
	}
	return true, errors.Join(removeAll(dir, base), dropCompanion(dir, base))
}

// open copies a directory up, and those that it is in.
func (g *stackGround) open(path string) (int, error) {
	root := int(g.upper.Fd())
	fd, err := openBeneath(root, "./"+path)
	if err == nil || !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	dir, base := splitLast(path)
	parent, err := g.open(dir)
	if err != nil {
		return -1, err
	}
	err = g.keepingTime(parent, func() error { return g.copyDir(parent, path, base) })
	if err := errors.Join(err, unix.Close(parent)); err != nil {
		return -1, fmt.Errorf("copy directory %s from the layers below: %w", quote(path), err)
	}
	return openBeneath(root, "./"+path)
}

// keepingTime runs fn, which makes something in a directory that the layer says
// nothing of by that.
func (g *stackGround) keepingTime(dir int, fn func() error) error {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return err
	}
	if err := fn(); err != nil {
		return err
	}
	return setTimes(dir, stamp{st.Mtim.Sec, st.Mtim.Nsec})
}

func (g *stackGround) copyDir(parent int, path, base string) (err error) {
	from, err := g.lower.open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(from)) }()
	if err := unix.Mkdirat(parent, base, overrideDirMode); err != nil {
		return err
	}
	to, err := openBeneath(parent, base)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(to)) }()
	return g.copyMeta(from, to, path)
}

func (g *stackGround) copyMeta(from, to int, path string) error {
	e, err := g.meta.entryOf(from, path)
	if err != nil {
		return err
	}
	if err := g.meta.bare(to); err != nil {
		return err
	}
	return g.meta.overrideFile(to, e)
}

// bring copies a file of a layer up. Its other names stay with the layer, as in an
// overlay without an index.
func (g *stackGround) bring(dir int, path string) error {
	_, base := splitLast(path)
	w, _, err := look(dir, base)
	if err != nil || w != absent {
		return err
	}
	st, layer, err := g.below(path)
	if err != nil {
		return err
	}
	at, _ := splitLast(path)
	return g.keepingTime(dir, func() error {
		return g.lower.in(layer, at, func(from int) error {
			if st.Mode&unix.S_IFMT == unix.S_IFLNK {
				return copyLink(from, dir, base, &st)
			}
			return g.copyFile(from, dir, path, base)
		})
	})
}

func copyLink(from, to int, base string, st *unix.Stat_t) error {
	target, err := readLink(from, base)
	if err != nil {
		return err
	}
	if err := unix.Symlinkat(target, to, base); err != nil {
		return err
	}
	ts := timespecs(stamp{st.Mtim.Sec, st.Mtim.Nsec})
	return unix.UtimesNanoAt(to, base, ts[:], unix.AT_SYMLINK_NOFOLLOW)
}

func (g *stackGround) copyFile(from, to int, path, base string) (err error) {
	source, err := openPlain(from, base)
	if err != nil {
		return err
	}
	in := os.NewFile(uintptr(source), base)
	defer func() { err = errors.Join(err, in.Close()) }()
	target, err := unix.Openat(to, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, overrideFileMode)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(target), base)
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := copyData(in, out); err != nil {
		return err
	}
	return g.copyMeta(source, target, path)
}

// copyData copies what is in a file, and leaves its holes.
func copyData(in, out *os.File) error {
	st, err := in.Stat()
	if err != nil {
		return err
	}
	for at := int64(0); at < st.Size(); {
		data, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // a hole to the end
		}
		end := st.Size()
		if err != nil {
			data = at // a file system that does not tell
		} else if hole, err := unix.Seek(int(in.Fd()), data, unix.SEEK_HOLE); err == nil {
			end = hole
		}
		if err := copyRange(in, out, data, end-data); err != nil {
			return err
		}
		at = end
	}
	return out.Truncate(st.Size())
}

func copyRange(in, out *os.File, at, length int64) error {
	if _, err := in.Seek(at, io.SeekStart); err != nil {
		return err
	}
	if _, err := out.Seek(at, io.SeekStart); err != nil {
		return err
	}
	_, err := io.CopyN(out, in, length)
	return err
}
