// SPDX-License-Identifier: Apache-2.0

package overlayutil

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Facts is what the kernel and one directory can do together.
type Facts struct {
	// Type is the type of overlay mounts that the facts are about, see Plan.
	Type           string
	Overlay        Finding // ProbeOverlay
	UserXattr      Finding // ProbeUserXattr
	WhiteoutDevice Finding // ProbeWhiteoutDevice
	IDMap          Finding // ProbeIDMap
	DType          Finding // ProbeDType
	Xattr          Finding // ProbeXattr in the namespace of XattrNamespace
	Index          Finding // ModuleParameter("index")
	RedirectDir    Finding // ModuleParameter("redirect_dir")
	Metacopy       Finding // ModuleParameter("metacopy")
}

// CheckRoot runs all probes in a directory that is to hold layers and snapshots.
// A directory that cannot serve is ErrFailedPrecondition with what to do about
// it; the facts are returned with it. A probe that could not tell never refuses.
func CheckRoot(dir string) (Facts, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Facts{}, sysError("check the root directory "+dir, err)
	}
	facts := probeAll(dir)
	return facts, facts.refusal(dir, int64(st.Type))
}

// probeAll asks for the module's parameters last: mounting may load the module.
func probeAll(dir string) Facts {
	facts := Facts{
		Overlay:        ProbeOverlay(dir),
		UserXattr:      ProbeUserXattr(dir),
		WhiteoutDevice: ProbeWhiteoutDevice(dir),
		IDMap:          ProbeIDMap(dir),
		DType:          ProbeDType(dir),
		Index:          ModuleParameter("index"),
		RedirectDir:    ModuleParameter("redirect_dir"),
		Metacopy:       ModuleParameter("metacopy"),
	}
	facts.Xattr = ProbeXattr(dir, facts.XattrNamespace())
	return facts
}

// XattrNamespace is the namespace that overlays use here.
func (f Facts) XattrNamespace() XattrNamespace {
	if f.UserXattr.Answer == Yes {
		return User
	}
	return Trusted
}

// refusal is the first reason why the directory cannot be a root.
func (f Facts) refusal(dir string, fsType int64) error {
	for _, need := range []struct {
		finding Finding
		advice  string
	}{
		{f.DType, "use a file system with d_type: format xfs with 'mkfs.xfs -n ftype=1', ext4 with '-O filetype'"},
		{f.Overlay, f.adviceOverlay(fsType)},
		{f.Xattr, adviceXattr(fsType)},
		{f.WhiteoutDevice, "deletions in images cannot be stored: use a file system with device nodes, and Linux 5.8 or later in a user namespace"},
	} {
		if need.finding.Answer == No {
			// The reason's own class must not compete with this one.
			return failedPrecondition("the directory %s (%s) cannot hold layers: %v: %s",
				dir, fsName(fsType), need.finding.Reason, need.advice)
		}
	}
	return nil
}

func adviceXattr(fsType int64) string {
	if fsType == unix.TMPFS_MAGIC {
		return "a tmpfs in a user namespace has extended attributes since Linux 6.6: use a directory on ext4, xfs or btrfs"
	}
	return "use a local file system with extended attributes (ext4, xfs, btrfs), not NFS"
}

func (f Facts) adviceOverlay(fsType int64) string {
	reason := f.Overlay.Reason
	switch {
	case f.Type == FuseOverlayfs:
		return "fuse-overlayfs has to mount a directory there"
	case errors.Is(reason, unix.ENODEV):
		return "the kernel has no overlay: load the module with 'modprobe overlay'"
	case fsType == unix.OVERLAYFS_SUPER_MAGIC:
		return "an overlay's writable directory cannot be on an overlay: put the root on a volume or another disk (ext4, xfs, btrfs)"
	case errors.Is(reason, unix.EPERM), errors.Is(reason, unix.EACCES):
		return "mounting is not permitted: run as root, or in a user namespace with Linux 5.11 or later"
	}
	return "put the root on a local disk (ext4, xfs with ftype=1, btrfs)"
}

// fsNames are the file systems that people have trouble with.
var fsNames = map[int64]string{
	unix.OVERLAYFS_SUPER_MAGIC: "overlay",
	unix.NFS_SUPER_MAGIC:       "nfs",
	unix.TMPFS_MAGIC:           "tmpfs",
	unix.XFS_SUPER_MAGIC:       "xfs",
	unix.EXT4_SUPER_MAGIC:      "ext4",
	unix.BTRFS_SUPER_MAGIC:     "btrfs",
	unix.FUSE_SUPER_MAGIC:      "fuse",
	unix.V9FS_MAGIC:            "9p",
	unix.ECRYPTFS_SUPER_MAGIC:  "ecryptfs",
	unix.MSDOS_SUPER_MAGIC:     "vfat",
	unix.EXFAT_SUPER_MAGIC:     "exfat",
}

func fsName(fsType int64) string {
	if name, ok := fsNames[fsType]; ok {
		return name
	}
	return fmt.Sprintf("file system type %#x", fsType)
}

// MountOptions returns the user's overlay options with what must be among them:
// userxattr where it is needed, and index=off and metacopy=off unless the user
// set them. A layer must not depend on a kernel's default: with an index the
// kernel refuses an upper directory over lowers that are not the very ones it
// was first mounted with (ESTALE), and with metacopy an upper directory becomes
// a layer whose files have no content.
func (f Facts) MountOptions(user []string) []string {
	options := slices.Clone(user)
	if f.Type != "" { // fuse-overlayfs has none of these
		return options
	}
	if f.UserXattr.Answer == Yes && !hasOption(user, "userxattr") {
		options = append(options, "userxattr")
	}
	if f.Index.Answer != Unknown && !hasOption(user, "index") {
		options = append(options, "index=off")
	}
	if f.Metacopy.Answer == Yes && !hasOption(user, "metacopy") {
		options = append(options, "metacopy=off")
	}
	return options
}

// hasOption tells whether the options set this one, to whatever value.
func hasOption(options []string, key string) bool {
	for option := range strings.SplitSeq(strings.Join(options, ","), ",") {
		if name, _, _ := strings.Cut(option, "="); name == key {
			return true
		}
	}
	return false
}
