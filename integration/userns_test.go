// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// hostID is the host's user and group that root in the tests' user namespaces is.
const hostID = 100000

var idMap = []specs.LinuxIDMapping{{ContainerID: 0, HostID: hostID, Size: 65536}}

// A container in a user namespace sees the image's owners as they are in the image,
// and what it writes belongs to the mapped ids on disk: once with idmapped mounts by
// the snapshotter, once with a copy whose owners the client changed.
func TestUserNamespace(t *testing.T) {
	for name, snapshot := range map[string]func(string, containerd.Image) containerd.NewContainerOpts{
		"remap labels": func(id string, i containerd.Image) containerd.NewContainerOpts {
			return containerd.WithNewSnapshot(id, i, containerd.WithUserNSRemapperLabels(idMap, idMap))
		},
		"chown by the client": func(id string, i containerd.Image) containerd.NewContainerOpts {
			return containerd.WithUserNSRemappedSnapshot(id, i, idMap, idMap)
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, settings{})
			image := n.importImage(n.ctx(), sampleRef, sample(t))
			c := n.start(image, spec{
				id:       "mapped",
				snapshot: func() containerd.NewContainerOpts { return snapshot("mapped", image) },
				options:  []oci.SpecOpts{oci.WithUserNamespace(idMap, idMap)},
				args:     idle,
			})
			expect(t, "the image's owners, seen inside", c.exec("stat -c '%n %u:%g' /etc/greeting /srv/owned; id -u"),
				"/etc/greeting 0:0\n/srv/owned 1000:1000\n0\n")
			expect(t, "new files, seen inside", c.exec("echo x >/mine; echo x >/theirs; chown 5:6 /theirs; stat -c '%n %u:%g' /mine /theirs"),
				"/mine 0:0\n/theirs 5:6\n")
			n.checkOwners("mapped", map[string]uint32{"mine": hostID, "theirs": hostID + 5})
			c.remove()
		})
	}
}

// checkOwners looks up who owns files of a snapshot's writable directory on disk.
func (n *node) checkOwners(key string, want map[string]uint32) {
	n.t.Helper()
	upper := n.upperdir(key)
	for name, uid := range want {
		info, err := os.Lstat(filepath.Join(upper, name))
		if err != nil {
			n.t.Error(err)
			continue
		}
		if got := owner(info); got != uid {
			n.t.Errorf("%s belongs to uid %d on disk, want %d", name, got, uid)
		}
	}
}

func owner(info fs.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }

// upperdir gives the writable directory of a snapshot, from its mounts.
func (n *node) upperdir(key string) string {
	n.t.Helper()
	mounts, err := n.snapshots().Mounts(n.ctx(), key)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, m := range mounts {
		if i := slices.IndexFunc(m.Options, func(o string) bool { return strings.HasPrefix(o, "upperdir=") }); i >= 0 {
			return strings.TrimPrefix(m.Options[i], "upperdir=")
		}
	}
	n.t.Fatal(fmt.Errorf("no upperdir among the mounts %v", mounts))
	return ""
}
