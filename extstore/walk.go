// SPDX-License-Identifier: Apache-2.0

package extstore

import (
	"context"
	"errors"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// entry is a file or directory of a tree while walk is there.
type entry struct {
	dir  *os.File // the directory it is in, or, of the root, is
	base string
	rel  string // path in the tree, "." for the root
	st   unix.Stat_t
}

func (e *entry) kind() uint32 { return e.st.Mode & unix.S_IFMT }

// walk visits the tree below root in the order of the index. It holds one
// directory open at a time, follows no link and enters no mount.
func walk(ctx context.Context, root *os.File, visit func(*entry) error) error {
	e := entry{dir: root, base: ".", rel: "."}
	if err := unix.Fstat(int(root.Fd()), &e.st); err != nil {
		return err
	}
	if err := visit(&e); err != nil {
		return err
	}
	todo := []string{"."}
	for len(todo) > 0 {
		rel := todo[len(todo)-1]
		subs, err := walkDirectory(ctx, root, rel, visit)
		if err != nil {
			return err
		}
		slices.Reverse(subs)
		todo = append(todo[:len(todo)-1], subs...)
	}
	return nil
}

func walkDirectory(ctx context.Context, root *os.File, rel string, visit func(*entry) error) (subs []string, err error) {
	dir, err := openQuietly(root, rel, dirFlags)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	for _, base := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		e := entry{dir: dir, base: base, rel: path.Join(rel, base)}
		if err := unix.Fstatat(int(dir.Fd()), base, &e.st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil, &os.PathError{Op: "stat", Path: e.rel, Err: err}
		}
		if err := visit(&e); err != nil {
			return nil, err
		}
		if e.kind() == unix.S_IFDIR {
			subs = append(subs, e.rel)
		}
	}
	return subs, nil
}

// readlink returns the target of a symbolic link.
func (e *entry) readlink() (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(e.dir.Fd()), e.base, buf)
	if err != nil {
		return "", &os.PathError{Op: "readlink", Path: e.rel, Err: err}
	}
	return string(buf[:n]), nil
}

// open opens a regular file for reading. One that is something else by now is
// an error, and never waited at.
func (e *entry) open() (*os.File, error) {
	f, err := openQuietly(e.dir, e.base, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	err = unix.Fstat(int(f.Fd()), &st)
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Ino != e.st.Ino) {
		err = &os.PathError{Op: "open", Path: e.rel, Err: errors.New("it was replaced while it was read")}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
