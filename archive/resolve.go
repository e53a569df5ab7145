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
	if path == "" {
		path = "."
	}
	fd, err := openBeneath(int(o.root.Fd()), path)
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
	return o.follow(path, func(string, string) error { return unix.ENOENT })
}

// follow walks path component by component. missing is called where one is not
// there.
func (o *onto) follow(path string, missing func(at, base string) error) (string, error) {
	at := ""
	links := 0
	rest := path
	for rest != "" {
		base, more, _ := strings.Cut(rest, "/")
		rest = more
		switch base {
		case "", ".":
			continue
		case "..":
			at, _ = splitLast(at)
			continue
		}
		link, err := o.step(at, base)
		if errors.Is(err, unix.ENOENT) {
			err = missing(at, base)
		}
		if err != nil {
			return "", err
		}
		if link == "" {
			at = join(at, base)
			continue
		}
		if links++; links > maxLinks {
			return "", bad("%s leads through more than %d links", quote(path), maxLinks)
		}
		if strings.HasPrefix(link, "/") {
			at = ""
		}
		rest = link + "/" + rest
	}
	return at, nil
}

// step looks at base in the directory at: a link is returned, anything else must
// be a directory.
func (o *onto) step(at, base string) (link string, err error) {
	dir, err := o.openDir(at)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, unix.Close(dir)) }()
	var st unix.Stat_t
	if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return "", err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "", nil
	case unix.S_IFLNK:
		return readLink(dir, base)
	}
	return "", bad("%s is no directory, but entries of the layer are in it", quote(join(at, base)))
}

func readLink(dir int, base string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, base, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

func (o *onto) makeMissing(at, base string) error {
	if err := o.noteTime(at); err != nil {
		return err
	}
	dir, err := o.openDir(at)
	if err != nil {
		return err
	}
	return errors.Join(o.makeDir(dir, join(at, base), base), unix.Close(dir))
}

// noteTime remembers when a directory was changed, if it is not of this layer's
// making.
func (o *onto) noteTime(path string) error {
	if _, known := o.times[path]; known || o.made[path] {
		return nil
	}
	fd, err := o.openDir(path)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	o.times[path] = stamp{st.Mtim.Sec, st.Mtim.Nsec}
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
		for name := range bytes.SplitSeq(bytes.TrimRight(buf[:n], "\x00"), []byte{0}) {
			names = append(names, string(name))
		}
		return names, nil
	}
}

// isLayerXattr says whether an attribute can come from a layer: the rest is the
// host's.
func isLayerXattr(name string) bool {
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "system.posix_acl_") || name == "security.capability"
}
