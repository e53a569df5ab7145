// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many links one path may lead through, as in the kernel.
const maxLinks = 40

func join(dir, base string) string {
	if dir == "" {
		return base
	}
	return dir + "/" + base
}

// openDir opens a directory by a path that has no links.
func (o *onto) openDir(path string) (int, error) {
	fd, err := o.ground.open(path)
	if err != nil {
		return -1, fmt.Errorf("open directory %s: %w", quote(path), err)
	}
	return fd, nil
}

// resolve follows links in path, as if the directory were the root of the
// system, and returns where it leads, free of links. What of it is not there is
// made, also where a link leads nowhere: that is what extracting onto one
// directory does. Its time is noted, as something is about to change in it.
func (o *onto) resolve(path string) (string, error) {
	at, err := o.follow(path, o.makeMissing)
	if err != nil {
		return "", err
	}
	return at, o.noteTime(at)
}

// lookup is resolve without making anything: unix.ENOENT if it is not there.
func (o *onto) lookup(path string) (string, error) {
	return o.follow(path, func(*walker, string) error { return unix.ENOENT })
}

// follow walks path. missing is called where a component is not there. Most paths
// are there and have no links: those are opened at once.
func (o *onto) follow(path string, missing func(w *walker, base string) error) (at string, err error) {
	if g, ok := o.ground.(plainGround); ok {
		if fd, err := g.open("./" + path); err == nil {
			return path, unix.Close(fd)
		}
	}
	w := &walker{o: o, fd: -1}
	if err := w.reset(""); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, w.move(-1, "")) }()
	links := 0
	for rest := path; rest != ""; {
		base, more, _ := strings.Cut(rest, "/")
		link, err := w.step(base)
		if errors.Is(err, unix.ENOENT) {
			if err = missing(w, base); err == nil {
				continue // it is there now
			}
		}
		if err != nil {
			return "", err
		}
		rest = more
		if link == "" {
			continue
		}
		if links++; links > maxLinks {
			return "", bad("%s leads through more than %d links", quote(path), maxLinks)
		}
		if strings.HasPrefix(link, "/") {
			if err := w.reset(""); err != nil {
				return "", err
			}
		}
		rest = link + "/" + rest
	}
	return w.at, nil
}

// walker is a directory on the way along a path: its descriptor, and its own path,
// which has no links. It goes down one name at a time, so that a path costs its
// length, not the square of it.
type walker struct {
	o  *onto
	fd int
	at string
}

// step goes into base. Where base is a link it stays, and returns the link.
func (w *walker) step(base string) (link string, err error) {
	switch base {
	case "", ".":
		return "", nil
	case "..":
		up, _ := splitLast(w.at)
		return "", w.reset(up)
	}
	fd, link, err := w.o.ground.enter(w.fd, w.at, base)
	switch {
	case errors.Is(err, unix.EINVAL): // no link
		return "", bad("%s is no directory, but entries of the layer are in it", quote(join(w.at, base)))
	case err != nil || link != "":
		return link, err
	}
	return "", w.move(fd, join(w.at, base))
}

// reset goes to path, which has no links.
func (w *walker) reset(path string) error {
	if _, ok := w.o.ground.(plainGround); !ok {
		return w.move(-1, path) // that needs no descriptor on the way
	}
	fd, err := w.o.openDir(path)
	if err != nil {
		return err
	}
	return w.move(fd, path)
}

func (w *walker) move(fd int, at string) (err error) {
	if w.fd >= 0 {
		err = unix.Close(w.fd)
	}
	w.fd, w.at = fd, at
	return err
}

func readLink(dir int, base string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, base, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

func (o *onto) makeMissing(w *walker, base string) error {
	if err := o.noteTime(w.at); err != nil {
		return err
	}
	path := join(w.at, base)
	if w.fd >= 0 {
		return o.makeDir(w.fd, path, base)
	}
	dir, err := o.openDir(w.at)
	if err != nil {
		return err
	}
	return errors.Join(o.makeDir(dir, path, base), unix.Close(dir))
}

// noteTime remembers when a directory was changed, if it is not of this layer's
// making.
func (o *onto) noteTime(path string) error {
	n := o.seen.at(path)
	if n.timed || n.made {
		return nil
	}
	fd, err := o.openDir(path)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	n.timed, n.time = true, stamp{st.Mtim.Sec, st.Mtim.Nsec}
	return errors.Join(err, unix.Close(fd))
}

func listXattrs(fd int) ([]string, error) {
	for {
		size, err := unix.Flistxattr(fd, nil)
		if errors.Is(err, unix.ENOTSUP) || (err == nil && size == 0) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		buf := make([]byte, size)
		n, err := unix.Flistxattr(fd, buf)
		if errors.Is(err, unix.ERANGE) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var names []string
		// An overlay counts its own marks in the size, and leaves them out here.
		for name := range bytes.SplitSeq(buf[:n], []byte{0}) {
			if len(name) > 0 {
				names = append(names, string(name))
			}
		}
		return names, nil
	}
}

// isLayerXattr says whether an attribute can come from a layer: the rest is the
// host's.
func isLayerXattr(name string) bool {
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "system.posix_acl_") || name == "security.capability"
}
