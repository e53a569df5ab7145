// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"

	"github.com/strata-snapshotter/strata/extstore"
	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/layerstore"
)

// export writes the layers of an image that the node has pulled to an additional store.
func (n *node) export(dir string, p published) {
	n.t.Helper()
	for i, diffID := range p.diffIDs {
		if err := n.exportLayer(dir, diffID, p.blobs[i]); err != nil {
			n.t.Fatal(err)
		}
	}
}

func (n *node) exportLayer(dir string, diffID, blob digest.Digest) (err error) {
	all := n.layerJSONs()
	at := slices.IndexFunc(all, func(m layerstore.Manifest) bool { return m.DiffID == diffID })
	if at < 0 {
		return fmt.Errorf("the store has no layer %s", diffID)
	}
	m := all[at]
	fs, err := os.Open(filepath.Join(n.root, "layers", strconv.FormatUint(m.Number, 10), "fs"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fs.Close()) }()
	layer := extstore.Layer{
		DiffID: diffID, Size: m.Size, Dir: fs, Bytes: m.Bytes, Inodes: m.Inodes, Empty: m.Empty, OpaqueRoot: m.OpaqueRoot,
		Created: m.Created, Blobs: []digest.Digest{blob},
	}
	if len(m.Needs) > 0 {
		if err := json.Unmarshal(m.Needs, &layer.Needs); err != nil {
			return err
		}
	}
	return extstore.Export(n.ctx(), dir, layer)
}

// withStores is a node's configuration.
func withStores(dirs ...string) string {
	quoted := make([]string, len(dirs))
	for i, dir := range dirs {
		quoted[i] = "'" + dir + "'"
	}
	return "[snapshotter]\nadditional_stores = [" + strings.Join(quoted, ", ") + "]\n"
}

// expectExternal counts the layers of additional stores.
func (n *node) expectExternal(want int) {
	n.t.Helper()
	got := 0
	for _, m := range n.layerJSONs() {
		if m.Format == layerstore.FormatExternal {
			got++
		}
	}
	if got != want {
		n.t.Errorf("%d layers are of additional stores, want %d", got, want)
	}
}

// runnable is an image with layers of all kinds whose containers can run.
func runnable(t *testing.T, m *meter) published {
	t.Helper()
	layers := append(modelled(t), layertest.Layer{layertest.File("srv/implicit/file", "x")}, layertest.Layer{})
	return m.publish("runnable", layers...)
}

// run starts a container of the image and looks at its files.
func (n *node) run(image containerd.Image, id string) {
	n.t.Helper()
	c := n.start(image, spec{id: id, args: []string{"/bin/sh", "-c", proof}})
	c.wait()
	c.remove()
	expect(n.t, "in container "+id, c.out.String(), proven)
}

// fill makes an additional store with the image's layers, by a node of its own.
func fill(t *testing.T, m *meter, dir string, images ...published) {
	t.Helper()
	t.Run("export", func(t *testing.T) {
		n := newNode(t, settings{})
		for _, p := range images {
			n.pull(n.ctx(), p.ref)
			n.export(dir, p)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	m.reset()
}

// A fresh node takes an image from an additional store: it fetches no layer, runs it,
// and still does after a restart and after a reboot, which takes the mounts away.
func TestStoresServeImages(t *testing.T) {
	needStrata(t)
	m := newMeter(t)
	p := runnable(t, m)
	dir := filepath.Join(testutil.Tmpfs(t), "store") // another file system than the root's
	fill(t, m, dir, p)
	damaged := filepath.Join(t.TempDir(), "damaged")
	if err := os.MkdirAll(damaged, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(damaged, "strata-store.json"), "{")
	for name, unpacks := range modes {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, settings{unpacks: unpacks, daemon: withStores("/absent", damaged, dir)})
			ctx := n.ctx()
			m.reset() // of what the other mode fetched
			known := p.blobs
			if unpacks > 1 {
				// A layer that asks its parents can't be staged before they are known.
				known = p.blobs[:5]
				_, release := m.hold(known...)
				defer release()
			}
			image := n.pull(ctx, p.ref)
			if got := m.servedOf(known); got != 0 {
				t.Errorf("%d bytes of layers were fetched that the additional store has", got)
			}
			n.checkStore()
			n.run(image, "first")
			n.expectTree(ctx, image, p)
			n.restartStrata(func() {})
			n.run(image, "restarted")
			n.restartStrata(n.unmountLayers)
			n.checkStore()
			n.run(image, "rebooted")
			if count := n.logCount("level=warning"); count > 20 {
				t.Errorf("%d warnings about two stores that can't be used", count)
			}
			n.deleteImage(ctx, p.ref)
			n.expectLayers(0)
			n.checkStore()
		})
	}
}

// restartStrata stops the daemon, does what is to be done, and starts it again.
func (n *node) restartStrata(between func()) {
	n.t.Helper()
	n.strata.stop(n.t)
	between()
	n.startStrata()
	n.waitSnapshotter()
}

// unmountLayers takes away the mounts in the store, as a reboot does.
func (n *node) unmountLayers() {
	n.t.Helper()
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(filepath.Join(n.root, "layers")))
	if err != nil || len(mounts) == 0 {
		n.t.Fatalf("no layers are mounted (%v)", err)
	}
	for _, m := range mounts {
		if err := syscall.Unmount(m.Mountpoint, 0); err != nil {
			n.t.Fatal(err)
		}
	}
}

// An image of which a store has some layers is completed from the registry.
func TestStoresServeLayers(t *testing.T) {
	needStrata(t)
	m := newMeter(t)
	f := newFamily(m)
	dir := filepath.Join(t.TempDir(), "store")
	fill(t, m, dir, f.first)
	for name, unpacks := range modes {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, settings{unpacks: unpacks, daemon: withStores(dir)})
			m.reset()
			_, release := m.hold(f.shared...)
			defer release()
			image := n.pull(n.ctx(), f.second.ref)
			n.expectExtractions(0, 1)
			n.expectLayers(4)
			n.expectExternal(3)
			n.expectTree(n.ctx(), image, f.second)
			n.checkStore()
			// The other image comes from the store alone, and shares what is there.
			n.expectTree(n.ctx(), n.pull(n.ctx(), f.first.ref), f.first)
			n.expectExternal(4)
			if got := m.servedOf(f.first.blobs); got != 0 {
				t.Errorf("%d bytes of layers were fetched that the store has", got)
			}
			n.checkStore()
		})
	}
}

// A store goes under images that stand on it. What needs it fails with an error that
// names it; all else goes on; and when the store is back, so are they.
func TestStoresThatGo(t *testing.T) {
	needStrata(t)
	m := newMeter(t)
	p := m.publish("outside", heavies("outside", 3, 4<<10)...)
	own := m.publish("own", heavies("own", 2, 4<<10)...)
	dir := filepath.Join(t.TempDir(), "store")
	fill(t, m, dir, p)
	n := newNode(t, settings{daemon: withStores(dir)})
	ctx := n.ctx()
	image := n.pull(ctx, p.ref)
	n.expectExternal(3)
	ownImage := n.pull(ctx, own.ref)
	n.restartStrata(func() {
		n.unmountLayers()
		if err := os.Rename(dir, dir+".away"); err != nil {
			t.Fatal(err)
		}
	})
	if err := n.tryView(ctx, p); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("a view without the store: %v", err)
	}
	n.expectTree(ctx, ownImage, own)
	n.expectTree(ctx, n.pull(ctx, m.publish("more", heavies("own", 3, 4<<10)...).ref), published{ref: "more", layers: heavies("own", 3, 4<<10)})
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	n.expectTree(ctx, image, p)
	n.checkStore()
	// And for good: images can be removed without it, and pulled again.
	n.restartStrata(func() {
		n.unmountLayers()
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	})
	n.deleteImage(ctx, p.ref)
	n.expectTree(ctx, n.pull(ctx, p.ref), p)
	n.expectExternal(0)
	n.checkStore()
}

func (n *node) tryView(ctx context.Context, p published) error {
	const key = "without"
	_, err := n.snapshots().View(ctx, key, identity.ChainID(p.diffIDs).String(), snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "now"}))
	if err == nil {
		n.report("removing the view", n.snapshots().Remove(ctx, key))
	}
	return err
}
