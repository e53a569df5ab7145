// SPDX-License-Identifier: Apache-2.0

package overlayutil

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ProbeOverlay tells whether an overlay with its upper and two lower directories
// in dir can be mounted and does what it should: merge, and keep a new file and
// a deletion in the upper directory.
func ProbeOverlay(dir string) Finding {
	return probe(dir, func(s *scratch) error { return overlayWorks(s, s.mount) })
}

func overlayWorks(s *scratch, mount func(trial) (view, error)) (err error) {
	dirs, err := s.dirs("lower1", "lower2", "upper", "work")
	if err != nil {
		return err
	}
	if err := errors.Join(s.file("lower1", "top"), s.file("lower2", "bottom")); err != nil {
		return err
	}
	v, err := mount(trial{lowers: dirs[:2], upper: dirs[2], work: dirs[3]})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.close()) }()
	if err := v.mustShow("top", "bottom"); err != nil {
		return err
	}
	return v.changeIn(int(dirs[2].Fd()))
}

// mustShow refuses a view in which a name is missing.
func (v view) mustShow(names ...string) error {
	for _, name := range names {
		ok, err := v.exists(name)
		if err != nil {
			return err
		}
		if !ok {
			return refuse("an overlay mounts, but does not show a file of its lower directory")
		}
	}
	return nil
}

// changeIn deletes a lower file and makes a new one through the view, and looks
// for both in the upper directory.
func (v view) changeIn(upper int) error {
	if err := unix.Unlinkat(v.root, "top", 0); err != nil {
		return fmt.Errorf("delete a file in an overlay: %w", err)
	}
	if err := unix.Mkdirat(v.root, "new", 0o755); err != nil {
		return fmt.Errorf("make a directory in an overlay: %w", err)
	}
	shown, err := v.exists("top")
	if err != nil {
		return err
	}
	written, err := view{root: upper}.exists("new")
	if err != nil {
		return err
	}
	if shown || !written {
		return refuse("an overlay mounts, but does not keep changes in its upper directory")
	}
	return nil
}

// ProbeUserXattr tells whether overlays in dir need the userxattr option: in a
// user namespace overlay cannot use trusted.overlay.*, and an overlay without
// the option would mount and silently ignore opaque directories. Where
// trusted.overlay.* can be set, and so always outside of a user namespace, the
// answer is No.
func ProbeUserXattr(dir string) Finding {
	return probe(dir, userXattrNeeded)
}

func userXattrNeeded(s *scratch) (err error) {
	dirs, err := s.dirs("lower1", "lower2", "upper", "work")
	if err != nil {
		return err
	}
	opaque, err := s.dir("lower1", "d")
	if err != nil {
		return err
	}
	if Trusted.SetOpaque(int(opaque.Fd())) == nil {
		return refuse("not in a user namespace: %s* can be set", Trusted)
	}
	if err := User.SetOpaque(int(opaque.Fd())); err != nil {
		return err
	}
	if _, err := s.dir("lower2", "d"); err != nil {
		return err
	}
	if err := s.file("lower2", "d", "hidden"); err != nil {
		return err
	}
	return opaqueHides(s, trial{lowers: dirs[:2], upper: dirs[2], work: dirs[3], options: []string{"userxattr"}})
}

// opaqueHides mounts the trial and refuses it when d/hidden is to be seen.
func opaqueHides(s *scratch, t trial) (err error) {
	v, err := s.mount(t)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.close()) }()
	shown, err := v.exists("d/hidden")
	if err == nil && shown {
		return refuse("overlay takes the userxattr option, but ignores opaque directories")
	}
	return err
}
