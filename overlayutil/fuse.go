// SPDX-License-Identifier: Apache-2.0

package overlayutil

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
)

// FuseOverlayfs is the type of mounts that are made by fuse-overlayfs(1): containerd's
// mount code runs mount.fuse3(8) for it. It is what Plan.Type can be besides empty.
const FuseOverlayfs = "fuse3.fuse-overlayfs"

// maxFuseOption is the longest option that a program can be started with: one argument
// of execve(2), MAX_ARG_STRLEN, which mount.fuse3 makes of the whole command line.
const maxFuseOption = 32 * 4096

// fusePrograms are all that a mount of type FuseOverlayfs takes, by the packages that
// have them.
var fusePrograms = [][2]string{{"fuse-overlayfs", "fuse-overlayfs"}, {"mount.fuse3", "fuse3"}}

// CheckRootFuse is CheckRoot for a root whose snapshots are mounted by fuse-overlayfs.
// A directory that cannot serve, or a missing program or device, is
// ErrFailedPrecondition with what to do about it.
func CheckRootFuse(dir string) (Facts, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Facts{}, sysError("check the root directory "+dir, err)
	}
	facts := Facts{
		Type:           FuseOverlayfs,
		Overlay:        ProbeFuse(dir),
		UserXattr:      noTrusted(dir),
		WhiteoutDevice: ProbeWhiteoutDevice(dir),
		DType:          ProbeDType(dir),
	}
	facts.Xattr = ProbeXattr(dir, facts.XattrNamespace())
	return facts, facts.refusal(dir, int64(st.Type))
}

// noTrusted tells whether trusted.overlay.* is denied to this process. fuse-overlayfs
// reads user.overlay.* as well.
func noTrusted(dir string) Finding {
	if ProbeXattr(dir, Trusted).Answer == No {
		return Finding{Answer: Yes}
	}
	return Finding{No, refuse("not in a user namespace: %s* can be set", Trusted)}
}

// ProbeFuse tells whether fuse-overlayfs mounts an overlay in dir that does what it
// should, as ProbeOverlay has it.
func ProbeFuse(dir string) Finding {
	if reason := fuseMissing(); reason != nil {
		return Finding{No, reason}
	}
	return probe(dir, func(s *scratch) error { return overlayWorks(s, s.mountFuse) })
}

// fuseMissing says what is missing for fuse-overlayfs, and how to get it.
func fuseMissing() error {
	for _, p := range fusePrograms {
		if _, err := exec.LookPath(p[0]); err != nil {
			return refuse("the program %s is not installed: install the package %s", p[0], p[1])
		}
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		return unix.Close(fd)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return refuse("there is no /dev/fuse (%v): as root, modprobe fuse; a container needs --device /dev/fuse", err)
	}
	return refuse("/dev/fuse can't be opened (%v): as root, chmod 0666 /dev/fuse", err)
}

// mountFuse mounts the trial with the very code that mounts snapshots.
func (s *scratch) mountFuse(t trial) (v view, err error) {
	target := filepath.Join(s.path, "merged")
	if err := os.MkdirAll(target, 0o755); err != nil {
		return view{}, err
	}
	names := make([]string, len(t.lowers))
	for i, lower := range t.lowers {
		names[i] = EscapeLower(lower.Name())
	}
	m := mount.Mount{Type: FuseOverlayfs, Source: "overlay", Options: []string{
		"lowerdir=" + strings.Join(names, ":"), "upperdir=" + EscapeOption(t.upper.Name()), "workdir=" + EscapeOption(t.work.Name()),
	}}
	if err := m.Mount(target); err != nil {
		return view{}, refuse("%v", err)
	}
	unmount := func() error { return mount.UnmountAll(target, 0) }
	root, err := unix.Open(target, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return view{}, errors.Join(err, unmount())
	}
	return view{root, func() error { return errors.Join(unix.Close(root), unmount()) }}, nil
}

// checkFuse refuses what fuse-overlayfs can't mount, or would mount otherwise than it was
// meant: the options of id mappings have other names there.
func (p Plan) checkFuse(lowers []string) error {
	if p.UIDMap != "" {
		return failedPrecondition("fuse-overlayfs mounts no id-mapped snapshots here: mount with the kernel's overlay")
	}
	if size := optionsSize(p.data(escapeAll(lowers))); size > maxFuseOption/2 { // the shell's escapes
		return failedPrecondition("the mount options of a snapshot with %d layer directories take %d bytes: "+
			"build the image with fewer layers (squash it) or use a shorter root directory", len(lowers), size)
	}
	return nil
}
