// SPDX-License-Identifier: Apache-2.0

package overlayutil

import (
	"os"
	"path"
	"strings"
)

// MaxLowers is the number of lower directories that the kernel takes in one
// mount (OVL_MAX_STACK in fs/overlayfs); one more is EINVAL.
const MaxLowers = 500

const (
	// compactMargin is how far below the page containerd's mount code begins to
	// compact the lower directories (core/mount/mount_linux.go).
	compactMargin = 512
	// idMappedBase is the longest usual name of the directory through which
	// containerd's mount code shows id-mapped lowers (doPrepareIDMappedOverlay).
	// A longer one only matters where nothing is compacted, 512 bytes below the
	// limit.
	idMappedBase = "/tmp/ovl-idmapped4294967295"
)

// optionPage is the size in bytes of the buffer that mount(2) copies the options
// into: one page. The last byte is a NUL, and what does not fit is cut off
// without an error. A cut that falls between two lowers mounts an image with
// layers missing, so a plan must never come near it.
func optionPage() int {
	return os.Getpagesize()
}

// checkStack tells whether containerd's mount code will bring exactly these
// lowers to the kernel.
func (p Plan) checkStack(lowers []string) error {
	if len(lowers) > MaxLowers {
		return failedPrecondition("the snapshot has %d layer directories and the kernel's overlay mounts at most %d: "+
			"build the image with fewer layers (squash it)", len(lowers), MaxLowers)
	}
	common := commonDirectory(lowers)
	if p.UIDMap != "" && common == "/" {
		return failedPrecondition("the layers of an id-mapped snapshot (%s and others) have no directory in common: "+
			"use a root directory that is not the file system's root", lowers[0])
	}
	data := p.data(escapeAll(p.shownLowers(lowers, common)))
	compacted := optionsSize(p.mapOptions())+optionsSize(data) >= optionPage()-compactMargin
	if err := p.checkEscapes(lowers, compacted); err != nil {
		return err
	}
	if compacted {
		data = p.data(relativeTo(common, lowers))
	}
	return checkData(data, len(lowers))
}

// data are the options that reach the kernel, flags still among them, with these
// elements as the lower directories.
func (p Plan) data(elements []string) []string {
	data := append(p.upperOptions(), lowerOption(elements))
	return append(data, p.Options...)
}

// shownLowers are the paths that containerd's mount code has before it thinks of
// compacting: the lowers, or with id mappings the same below a temporary
// id-mapped copy of their common directory.
func (p Plan) shownLowers(lowers []string, common string) []string {
	if p.UIDMap == "" {
		return lowers
	}
	shown := make([]string, len(lowers))
	for i, lower := range lowers {
		shown[i] = path.Join(idMappedBase, strings.TrimPrefix(lower, common))
	}
	return shown
}

// checkEscapes refuses a lower directory that would need an escape where
// containerd's mount code takes the option apart at every ':' without knowing
// about escapes: when it compacts, and always with id mappings.
func (p Plan) checkEscapes(lowers []string, compacted bool) error {
	if !compacted && p.UIDMap == "" {
		return nil
	}
	for _, lower := range lowers {
		if NeedsEscape(lower) {
			return failedPrecondition("the layer directory %q cannot be mounted in a stack that is this long or id-mapped: "+
				"use a root directory whose path is without ':', ',' and '\\'", lower)
		}
	}
	return nil
}

// checkData refuses options that mount(2) would cut.
func checkData(options []string, layers int) error {
	data := make([]string, 0, len(options))
	for _, option := range options {
		if _, isFlag := mountFlags[option]; !isFlag {
			data = append(data, option)
		}
	}
	size, limit := len(strings.Join(data, ",")), optionPage()-1
	if size <= limit {
		return nil
	}
	return failedPrecondition("the mount options of a snapshot with %d layer directories take %d bytes and mount(2) takes %d: "+
		"build the image with fewer layers (squash it) or use a shorter root directory", layers, size, limit)
}

// commonDirectory is the deepest directory that all paths are below, found as
// containerd finds it: the directory of the longest common prefix.
func commonDirectory(paths []string) string {
	prefix := paths[0]
	for _, p := range paths[1:] {
		n := 0
		for n < len(prefix) && n < len(p) && prefix[n] == p[n] {
			n++
		}
		prefix = prefix[:n]
	}
	return path.Dir(prefix)
}

// relativeTo shortens the lowers as containerd's compaction does: never a single
// one, and nothing when the root is all they have in common.
func relativeTo(common string, lowers []string) []string {
	if common == "/" || len(lowers) == 1 {
		return lowers
	}
	relative := make([]string, len(lowers))
	for i, lower := range lowers {
		relative[i] = strings.TrimPrefix(lower, common+"/")
	}
	return relative
}

func optionsSize(options []string) int {
	size := 0
	for _, option := range options {
		size += len(option)
	}
	return size
}

// mountFlags are the options that containerd's mount code turns into flags of
// mount(2) or takes out: they are no data for the file system.
var mountFlags = map[string]struct{}{
	"async": {}, "atime": {}, "bind": {}, "dev": {}, "diratime": {}, "dirsync": {}, "exec": {}, "loop": {},
	"mand": {}, "noatime": {}, "nodev": {}, "nodiratime": {}, "noexec": {}, "nomand": {}, "norelatime": {},
	"nostrictatime": {}, "nosuid": {}, "rbind": {}, "relatime": {}, "remount": {}, "ro": {}, "rw": {},
	"strictatime": {}, "suid": {}, "sync": {},
}
