// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/strata-snapshotter/strata/overlayutil"
	"golang.org/x/sys/unix"
)

// stack shows what layers, top first, show together, without a mount of them: for
// layers of an ordinary user. It takes paths that are slash separated, relative and
// without links. No layer changes while it is in use.
type stack struct {
	layers []*os.File
	dirs   map[string][]int // which layers a directory is merged of
}

// maxStackDirs bounds what is remembered of directories.
const maxStackDirs = 4096

func newStack(layers []*os.File) *stack {
	return &stack{layers: layers, dirs: map[string][]int{}}
}

// what is what a directory of one layer has of a name.
type what int

const (
	absent    what = iota
	whiteout       // it is deleted
	mergedDir      // it merges with those below
	opaqueDir      // a directory that hides those below
	other          // any other file
)

// look looks a name up in a directory of a layer.
func look(dirfd int, base string) (w what, st unix.Stat_t, err error) {
	err = unix.Fstatat(dirfd, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT) && hasCompanion(dirfd, base):
		return whiteout, st, nil
	case errors.Is(err, unix.ENOENT):
		return absent, st, nil
	case err != nil:
		return absent, st, err
	case overlayutil.IsWhiteout(&st), isOverrideWhiteout(dirfd, base, &st):
		return whiteout, st, nil
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return other, st, nil
	}
	fd, err := openBeneath(dirfd, base)
	if err != nil {
		return absent, st, err
	}
	defer unix.Close(fd) //nolint:errcheck // a descriptor that was not written to
	opaque, err := isOpaqueDir(fd)
	if opaque {
		return opaqueDir, st, err
	}
	return mergedDir, st, err
}

// in calls fn with the directory path of a layer.
func (s *stack) in(layer int, path string, fn func(dirfd int) error) error {
	fd, err := openBeneath(int(s.layers[layer].Fd()), "./"+path)
	if err != nil {
		return fmt.Errorf("open directory %s of a layer below: %w", quote(path), err)
	}
	return errors.Join(fn(fd), unix.Close(fd))
}

// merged returns the layers that the directory path is merged of, top first; none if
// there is no such directory.
func (s *stack) merged(path string) (layers []int, err error) {
	if path == "" {
		for i := range s.layers {
			layers = append(layers, i)
		}
		return layers, nil
	}
	if known, ok := s.dirs[path]; ok {
		return known, nil
	}
	dir, base := splitLast(path)
	parents, err := s.merged(dir)
	if err != nil {
		return nil, err
	}
	for _, i := range parents {
		var w what
		err := s.in(i, dir, func(dirfd int) (err error) {
			w, _, err = look(dirfd, base)
			return err
		})
		if err != nil {
			return nil, err
		}
		if w == mergedDir || w == opaqueDir {
			layers = append(layers, i)
		}
		if w != absent && w != mergedDir {
			break
		}
	}
	if len(s.dirs) >= maxStackDirs {
		clear(s.dirs)
	}
	s.dirs[path] = layers
	return layers, nil
}

// find returns what is shown at path and the topmost layer that has it.
// unix.ENOENT: nothing is there.
func (s *stack) find(path string) (st unix.Stat_t, layer int, err error) {
	dir, base := splitLast(path)
	if path == "" {
		base = "."
	}
	parents, err := s.merged(dir)
	if err != nil {
		return st, -1, err
	}
	for _, i := range parents {
		var w what
		err := s.in(i, dir, func(dirfd int) (err error) {
			w, st, err = look(dirfd, base)
			return err
		})
		if err != nil {
			return st, -1, err
		}
		switch w {
		case absent:
			continue
		case whiteout:
			return st, -1, unix.ENOENT
		default:
			return st, i, nil
		}
	}
	return st, -1, unix.ENOENT
}

func (s *stack) stat(path string) (unix.Stat_t, error) {
	st, _, err := s.find(path)
	return st, err
}

// open opens a directory, in the topmost layer that has it: its metadata is what the
// stack shows.
func (s *stack) open(path string) (int, error) {
	layers, err := s.merged(path)
	if err != nil {
		return -1, err
	}
	if len(layers) == 0 {
		return -1, unix.ENOENT
	}
	return openBeneath(int(s.layers[layers[0]].Fd()), "./"+path)
}

// names lists a directory.
func (s *stack) names(path string) ([]string, error) {
	layers, err := s.merged(path)
	if err != nil {
		return nil, err
	}
	hidden := map[string]bool{} // or listed already
	var names []string
	for _, i := range layers {
		err := s.in(i, path, func(dirfd int) error {
			list, err := namesIn(dirfd)
			for _, name := range list {
				if err != nil || isMarkerName(name) || hidden[name] {
					continue
				}
				var w what
				w, _, err = look(dirfd, name)
				hidden[name] = true
				if w != whiteout && w != absent {
					names = append(names, name)
				}
			}
			for _, name := range list { // those without a file of their own
				if isMarkerName(name) {
					hidden[name[len(overlayutil.WhiteoutPrefix):]] = true
				}
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(names)
	return names, nil
}
