// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// entry is what a path of a tree is. Nothing of it depends on where the tree lies.
type entry struct {
	kind    fs.FileMode // type bits
	meta    string      // mode, owner, modification time, extended attributes
	content string      // digest, target, device number, other name
}

// ghost is a name that is listed, but not found: overlay shows a whiteout so where no
// other layer has its directory, unless that is marked.
var ghost = entry{content: "listed, but not found"}

// scan describes every path below root.
func scan(ctx context.Context, root string) (map[string]entry, error) {
	entries := map[string]entry{}
	first := map[[2]uint64]string{} // names of files with several
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		e, err := describe(path, strings.TrimPrefix(path, root), first)
		if errors.Is(err, fs.ErrNotExist) {
			e, err = ghost, nil
		}
		entries["/"+strings.TrimPrefix(strings.TrimPrefix(path, root), "/")] = e
		return err
	})
	return entries, err
}

func describe(path, name string, first map[[2]uint64]string) (entry, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return entry{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return entry{}, fmt.Errorf("%s: no system's metadata", path)
	}
	attrs, err := xattrs(path)
	if err != nil {
		return entry{}, err
	}
	e := entry{
		kind: info.Mode().Type(),
		meta: fmt.Sprintf("%04o %d:%d %d.%09d %s", st.Mode&0o7777, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, attrs),
	}
	switch {
	case info.Mode().IsRegular():
		key := [2]uint64{st.Dev, st.Ino}
		if other, ok := first[key]; ok && st.Nlink > 1 {
			e.content = "link of " + other
			return e, nil
		}
		first[key] = name
		e.content, err = hashFile(path)
	case info.Mode()&fs.ModeSymlink != 0:
		e.content, err = os.Readlink(path)
	case info.Mode()&fs.ModeDevice != 0:
		e.content = fmt.Sprint(st.Rdev)
	}
	return e, err
}

func hashFile(path string) (_ string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	hash := sha256.New()
	n, err := io.Copy(hash, f)
	return fmt.Sprintf("%d bytes %x", n, hash.Sum(nil)), err
}

// xattrMax is the kernel's limit for a list of names and for a value, in bytes.
const xattrMax = 64 << 10

// xattrs are all but overlay's own, which show where one layer is mounted alone.
func xattrs(path string) (string, error) {
	// Asked for the size first, overlay answers with one that is too small for its list.
	list := make([]byte, xattrMax)
	n, err := unix.Llistxattr(path, list)
	if err != nil || n == 0 {
		return "", err
	}
	var lines []string
	for name := range bytes.SplitSeq(bytes.TrimSuffix(list[:n], []byte{0}), []byte{0}) {
		if bytes.HasPrefix(name, []byte("trusted.overlay.")) {
			continue
		}
		value := make([]byte, xattrMax)
		n, err := unix.Lgetxattr(path, string(name), value)
		if err != nil {
			return "", err
		}
		lines = append(lines, fmt.Sprintf("%s=%x", name, value[:n]))
	}
	slices.Sort(lines)
	return strings.Join(lines, " "), nil
}
