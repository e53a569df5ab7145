// SPDX-License-Identifier: Apache-2.0

// Package mountuse finds out which directories of a root the overlays in the mount table
// of this process are made of.
package mountuse

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
)

// Uses are the mount points of overlays by the directories they are made of, which are
// given relative to the root: "layers/7", "snapshots/9".
type Uses map[string][]string

// Of reads the mount table of this process for overlays of the root, which goes by
// several paths. What is mounted with relative paths alone is not seen. Errors are
// ErrInternal.
func Of(roots []string) (Uses, error) {
	roots = slices.Clone(roots)
	for _, root := range roots {
		if real, err := filepath.EvalSymlinks(root); err == nil && !slices.Contains(roots, real) {
			roots = append(roots, real)
		}
	}
	infos, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("overlay"))
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w (%w)", err, errdefs.ErrInternal)
	}
	used := Uses{}
	for _, info := range infos {
		for dir := range overlayDirs(info.VFSOptions, roots) {
			used[dir] = append(used[dir], info.Mountpoint)
		}
	}
	return used, nil
}

// overlayDirs reads the directories of ours from overlay options. containerd shortens long
// options to paths relative to the layers: those count if another path tells whose they
// are.
func overlayDirs(options string, roots []string) map[string]bool {
	found, relative := map[string]bool{}, []string{}
	for option := range strings.SplitSeq(options, ",") {
		key, value, _ := strings.Cut(option, "=")
		switch key {
		case "upperdir", "lowerdir", "lowerdir+":
		default:
			continue
		}
		for dir := range strings.SplitSeq(value, ":") {
			if !filepath.IsAbs(dir) {
				relative = append(relative, "layers/"+strings.TrimPrefix(dir, "layers/"))
				continue
			}
			for _, root := range roots {
				if inside, ok := strings.CutPrefix(dir, root+"/"); ok {
					note(found, inside)
				}
			}
		}
	}
	if len(found) > 0 {
		for _, dir := range relative {
			note(found, dir)
		}
	}
	return found
}

// note keeps "layers/7" of "layers/7/fs".
func note(found map[string]bool, dir string) {
	if base, rest, ok := strings.Cut(dir, "/"); ok && (base == "layers" || base == "snapshots") {
		if number, tail, _ := strings.Cut(rest, "/"); tail == "fs" {
			found[base+"/"+number] = true
		}
	}
}
