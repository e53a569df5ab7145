// SPDX-License-Identifier: Apache-2.0

package overlayutil

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// trial is an overlay that a probe mounts, over open directories.
type trial struct {
	lowers      []*os.File // top first
	upper, work *os.File   // both nil for a read-only overlay
	options     []string   // flags such as userxattr
}

// view is a mounted trial: the descriptor of its root and how to let it go.
type view struct {
	root  int
	close func() error
}

// mount shows the overlay to this process alone where the kernel can do that,
// and otherwise mounts it inside the scratch directory. A container's seccomp
// filter answers EPERM where a kernel without the system call says ENOSYS.
func (s *scratch) mount(t trial) (view, error) {
	v, err := mountDetached(t)
	if !errors.Is(err, errNoDetached) {
		return v, err
	}
	target := filepath.Join(s.path, "merged")
	if err := os.MkdirAll(target, 0o755); err != nil {
		return view{}, err
	}
	return mountAttached(t, target)
}

// errNoDetached says that mounts without a mount point cannot be had here.
var errNoDetached = errors.New("no detached mounts")

// directories returns the trial's directories as key and value. The values are
// links in /proc: short whatever the path (fsconfig takes 256 bytes), and free
// of characters that would need an escape.
func (t trial) directories() [][2]string {
	lowers := make([]string, len(t.lowers))
	for i, lower := range t.lowers {
		lowers[i] = fdPath(lower)
	}
	dirs := [][2]string{{"lowerdir", strings.Join(lowers, ":")}}
	if t.upper != nil {
		dirs = append(dirs, [2]string{"upperdir", fdPath(t.upper)}, [2]string{"workdir", fdPath(t.work)})
	}
	return dirs
}

func fdPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// mountDetached mounts the trial where nobody can see it: the mount has no
// mount point and ends with its last descriptor, also when the process dies.
func mountDetached(t trial) (v view, err error) {
	fsfd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return view{}, fmt.Errorf("fsopen overlay: %w: %w", errNoDetached, err)
	}
	if err != nil {
		return view{}, fmt.Errorf("fsopen overlay: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fsfd)) }()
	if err := t.configure(fsfd); err != nil {
		return view{}, fmt.Errorf("mount overlay: %w%s", err, kernelMessages(fsfd))
	}
	root, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return view{}, fmt.Errorf("fsmount overlay: %w", err)
	}
	return view{root, func() error { return unix.Close(root) }}, nil
}

// configure hands the trial's options to a new file system context.
func (t trial) configure(fsfd int) error {
	for _, kv := range t.directories() {
		if err := unix.FsconfigSetString(fsfd, kv[0], kv[1]); err != nil {
			return fmt.Errorf("%s: %w", kv[0], err)
		}
	}
	for _, option := range t.options {
		if err := unix.FsconfigSetFlag(fsfd, option); err != nil {
			return fmt.Errorf("option %s: %w", option, err)
		}
	}
	return unix.FsconfigCreate(fsfd)
}

// kernelMessages returns what the kernel has to say about a context, which is
// more than the error number does. Each message begins with its level ("e ").
func kernelMessages(fsfd int) string {
	var all strings.Builder
	buf := make([]byte, 1024)
	for {
		n, err := unix.Read(fsfd, buf)
		if err != nil || n <= 0 {
			return all.String()
		}
		message := strings.TrimSpace(string(buf[:n]))
		all.WriteString("; " + strings.TrimPrefix(message, "e "))
	}
}

// mountAttached mounts the trial with mount(2) on target.
func mountAttached(t trial, target string) (v view, err error) {
	options := slices.Clone(t.options)
	for _, kv := range t.directories() {
		options = append(options, kv[0]+"="+kv[1])
	}
	if err := unix.Mount("overlay", target, "overlay", 0, strings.Join(options, ",")); err != nil {
		return view{}, fmt.Errorf("mount overlay on %s: %w", target, err)
	}
	detach := func() error { return unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) }
	root, err := unix.Open(target, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return view{}, errors.Join(fmt.Errorf("open the overlay on %s: %w", target, err), detach())
	}
	return view{root, func() error { return errors.Join(unix.Close(root), detach()) }}, nil
}

// exists tells whether the view shows the path.
func (v view) exists(path string) (bool, error) {
	var st unix.Stat_t
	err := unix.Fstatat(v.root, path, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}
