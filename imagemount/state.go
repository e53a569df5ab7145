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
	"github.com/opencontainers/go-digest"
)

// State is what has become of a mount.
type State string

const (
	// None means that it was never mounted, or it was unmounted.
	None State = ""
	// Mounted means that it is there, in this mount namespace.
	Mounted State = "mounted"
	// Elsewhere means that it is in the mount namespace of another process.
	Elsewhere State = "elsewhere"
	// Stale means that it is gone, without an unmount through this package.
	Stale State = "stale"
)

// place is where a process is: what of a mount's record it can judge.
type place struct {
	boot   string
	mounts map[string]string // mount point → identity, of the topmost mount here
	others map[string]string // "IDENTITY MOUNTPOINT" → a process that has it; nil: not looked for yet
}

func surroundings() (*place, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("find out about this boot: %w", err)
	}
	infos, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	p := &place{boot: strings.TrimSpace(string(boot)), mounts: map[string]string{}}
	for _, info := range infos { // in the order in which they were mounted
		p.mounts[info.Mountpoint] = identityOf(info)
	}
	return p, nil
}

// identityOf tells a mount from what comes to its place later. The kernel gives the number
// of a device that is gone to the next; an overlay is known by its directories, too.
func identityOf(info *mountinfo.Info) string {
	id := fmt.Sprintf("%s-%d:%d", info.FSType, info.Major, info.Minor)
	if info.FSType == "overlay" {
		id += "-" + digest.FromString(info.VFSOptions).Encoded()[:16]
	}
	return id
}

func (p *place) describe(info snapshots.Info) Snapshot {
	s := Snapshot{
		Name: info.Name, Writable: info.Kind == snapshots.KindActive,
		Image: info.Labels[LabelImage], Manifest: info.Labels[LabelManifest],
		Dir: info.Labels[labelDir], State: p.state(info.Labels), Created: info.Created, info: info,
	}
	if s.State == Elsewhere {
		s.holder = p.holder(s.Dir, info.Labels[labelIdentity])
	}
	return s
}

// state judges a record.
func (p *place) state(labels map[string]string) State {
	dir, id := labels[labelDir], labels[labelIdentity]
	switch {
	case dir == "":
		return None
	case id == "" || labels[labelBoot] != p.boot: // without an identity the mount was not completed
		return Stale
	case p.mounts[dir] == id:
		return Mounted
	case p.holder(dir, id) != "":
		return Elsewhere
	}
	return Stale
}

// holder finds a process in whose mount namespace something is mounted. Everybody may
// read the mount tables of all processes (proc(5)), but which namespace a process is in
// is hidden from other user namespaces.
func (p *place) holder(dir, id string) string {
	if p.others == nil {
		p.others = map[string]string{}
		tables, _ := filepath.Glob("/proc/[0-9]*/mountinfo") // the pattern is right
		for _, table := range tables {
			p.read(table)
		}
	}
	return p.others[id+" "+dir]
}

// read adds a process' overlays. One that has ended meanwhile, or can't be read, has none.
func (p *place) read(table string) {
	f, err := os.Open(table)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }() // nothing was written
	infos, err := mountinfo.GetMountsFromReader(f, nil)
	if err != nil {
		return
	}
	for _, info := range infos {
		p.others[identityOf(info)+" "+info.Mountpoint] = filepath.Base(filepath.Dir(table))
	}
}

func elsewhere(s Snapshot) error {
	return fmt.Errorf("snapshot %q is mounted at %s in another mount namespace, that of process %s: unmount it there, or end the processes there: %w",
		s.Name, s.Dir, s.holder, errdefs.ErrFailedPrecondition)
}
