// SPDX-License-Identifier: Apache-2.0

package imagemount

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
)

// State is what has become of a mount.
type State string

const (
	// None: it was never mounted, or it was unmounted.
	None State = ""
	// Mounted: it is there, in this mount namespace.
	Mounted State = "mounted"
	// Elsewhere: it is in the mount namespace of another process.
	Elsewhere State = "elsewhere"
	// Stale: it is gone, without an unmount through this package.
	Stale State = "stale"
)

// place is where a process is: what of a mount's record it can judge by itself.
type place struct {
	boot      string
	namespace string
	mounts    map[string]string // mount point → device, of the topmost mount
	others    map[string]bool   // mount namespaces of other processes; nil: not looked for yet
}

func surroundings() (*place, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("find out about this boot: %w", err)
	}
	namespace, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return nil, fmt.Errorf("find out about this mount namespace: %w", err)
	}
	infos, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	p := &place{boot: strings.TrimSpace(string(boot)), namespace: namespace, mounts: map[string]string{}}
	for _, info := range infos { // in the order in which they were mounted
		p.mounts[info.Mountpoint] = device(info.Major, info.Minor)
	}
	return p, nil
}

func device(major, minor int) string { return fmt.Sprintf("%d:%d", major, minor) }

func (p *place) describe(info snapshots.Info) Snapshot {
	return Snapshot{
		Name: info.Name, Writable: info.Kind == snapshots.KindActive,
		Image: info.Labels[LabelImage], Manifest: info.Labels[LabelManifest],
		Dir: info.Labels[labelDir], State: p.state(info.Labels), Created: info.Created, info: info,
	}
}

// state judges a record. A mount lives as long as its namespace, and that as long as a
// process in it.
func (p *place) state(labels map[string]string) State {
	dir := labels[labelDir]
	switch {
	case dir == "":
		return None
	case labels[labelBoot] != p.boot:
		return Stale
	case labels[labelNamespace] != p.namespace:
		if p.lives(labels[labelNamespace]) {
			return Elsewhere
		}
		return Stale
	}
	// Without a device the process ended in the middle of mounting.
	if at, ok := p.mounts[dir]; ok && at == labels[labelDevice] {
		return Mounted
	}
	return Stale
}

// lives tells whether a process is in the namespace. Those that can't be looked at are of
// others, who have no mounts of this store.
func (p *place) lives(namespace string) bool {
	if p.others == nil {
		p.others = map[string]bool{}
		links, _ := filepath.Glob("/proc/[0-9]*/ns/mnt") // the pattern is right
		for _, link := range links {
			if found, err := os.Readlink(link); err == nil {
				p.others[found] = true
			}
		}
	}
	return p.others[namespace]
}

func elsewhere(s Snapshot) error {
	return fmt.Errorf("snapshot %q is mounted at %s in another mount namespace (%s): unmount it there, or end the processes there: %w",
		s.Name, s.Dir, s.info.Labels[labelNamespace], errdefs.ErrFailedPrecondition)
}
