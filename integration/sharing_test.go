// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/strata-snapshotter/strata/internal/layertest"
)

// bulk is the size of a layer that must not be fetched.
const bulk = 128 << 10

// modes are containerd's two ways to unpack.
var modes = map[string]int{"in order": 0, "in parallel": 3}

// forget takes blobs out of containerd's content store.
func (n *node) forget(ctx context.Context, blobs ...digest.Digest) {
	n.t.Helper()
	for _, blob := range blobs {
		if err := n.client.ContentStore().Delete(ctx, blob); err != nil && !errdefs.IsNotFound(err) {
			n.t.Fatal(err)
		}
	}
	n.report("collecting garbage", n.collect(ctx))
}

// logCount is how often a text is in the daemon's log.
func (n *node) logCount(text string) int {
	n.t.Helper()
	data, err := os.ReadFile(n.strata.log)
	if err != nil {
		n.t.Fatal(err)
	}
	return bytes.Count(data, []byte(text))
}

// extractions is how many layers the daemon has extracted since its first start: those
// that were applied without being found, and those that were not waited for.
func (n *node) extractions() int {
	n.t.Helper()
	return n.logCount(`msg="layer applied"`) - n.logCount(`msg="a layer that is here already is not extracted again"`) +
		n.logCount(`msg="a layer was unpacked before it was asked for"`)
}

func (n *node) expectExtractions(since, want int) {
	n.t.Helper()
	if got := n.extractions() - since; got != want {
		n.t.Errorf("%d layers were extracted, want %d", got, want)
	}
}

func (n *node) expectLayers(want int) {
	n.t.Helper()
	eventually(n.t, "what is not needed goes", func() error {
		if got := n.layerDirs(); len(got) != want {
			return fmt.Errorf("the store has layers %v, want %d", got, want)
		}
		return nil
	})
}

// expectTree compares what a View of the image shows with what its layers mean.
func (n *node) expectTree(ctx context.Context, image containerd.Image, p published) {
	n.t.Helper()
	compareTrees(n.t, p.ref, truth(n.t, p.layers), n.mergedTree(ctx, image))
}

func (n *node) tryPull(ctx context.Context, ref string) (containerd.Image, error) {
	source, err := registry.NewOCIRegistry(ctx, ref)
	if err != nil {
		return nil, err
	}
	return n.transfer(ctx, ref, source)
}

// family is two images that share three layers, on different bases, and the second
// base alone.
type family struct {
	first, second, base published
	shared              []digest.Digest // blobs
}

func newFamily(m *meter) family {
	shared := heavies("shared", 3, bulk)
	a, b := heavies("base", 2, 4<<10)[0], heavies("base", 2, 4<<10)[1]
	f := family{
		first:  m.publish("first", append([]layertest.Layer{a}, shared...)...),
		second: m.publish("second", append([]layertest.Layer{b}, shared...)...),
		base:   m.publish("base", b),
	}
	f.shared = f.first.blobs[1:]
	return f
}

// The second image's base is there. containerd then asks for each layer before it
// fetches one, so that nothing of the shared ones is fetched.
func TestSharingOnKnownBase(t *testing.T) {
	needStrata(t)
	for name, unpacks := range modes {
		t.Run(name, func(t *testing.T) {
			m := newMeter(t)
			f := newFamily(m)
			n := newNode(t, settings{unpacks: unpacks})
			ctx := n.ctx()
			n.pull(ctx, f.first.ref)
			n.pull(ctx, f.base.ref)
			n.forget(ctx, append(f.shared, f.base.blobs...)...)
			m.reset()
			n.pullShared(ctx, m, f, 0)
		})
	}
}

// The second image's base is not there. containerd then begins to fetch all layers at
// once; it must not have to wait for those that are shared.
func TestSharingOnNewBase(t *testing.T) {
	needStrata(t)
	for name, unpacks := range modes {
		t.Run(name, func(t *testing.T) {
			m := newMeter(t)
			f := newFamily(m)
			n := newNode(t, settings{unpacks: unpacks})
			ctx := n.ctx()
			n.pull(ctx, f.first.ref)
			n.forget(ctx, f.shared...)
			m.reset()
			_, release := m.hold(f.shared...)
			defer release()
			n.pullShared(ctx, m, f, 1)
		})
	}
}

// pullShared pulls the second image and looks at the outcome.
func (n *node) pullShared(ctx context.Context, m *meter, f family, extractions int) {
	n.t.Helper()
	before := n.extractions()
	second := n.pull(ctx, f.second.ref)
	if got := m.servedOf(f.shared); got != 0 {
		n.t.Errorf("%d bytes of the shared layers were fetched", got)
	}
	n.expectExtractions(before, extractions)
	n.expectLayers(5)
	n.expectTree(ctx, second, f.second)
	n.checkStore()
	n.deleteImage(ctx, f.first.ref)
	n.expectLayers(4)
	n.expectTree(ctx, second, f.second)
	n.checkStore()
}

// Nothing but the blobs that are there tells which layers an import has.
func TestSharingOfImports(t *testing.T) {
	needStrata(t)
	for name, unpacks := range modes {
		t.Run(name, func(t *testing.T) {
			m := newMeter(t)
			f := newFamily(m)
			n := newNode(t, settings{unpacks: unpacks})
			ctx := n.ctx()
			n.importImage(ctx, "strata.test/first:1", f.first.img)
			n.expectExtractions(0, 4)
			second := n.importByClient(ctx, "strata.test/second:1", f.second.img)
			n.expectExtractions(0, 5)
			n.expectLayers(5)
			n.expectTree(ctx, second, f.second)
			n.checkStore()
		})
	}
}

// The same layers in other blobs have to be extracted to be known, and are kept once.
func TestSharingOfOtherBlobs(t *testing.T) {
	needStrata(t)
	m := newMeter(t)
	layers := heavies("same", 3, bulk)
	first := m.publish("gzip", layers...)
	second := m.publishImage("plain", uncompressedImage(t, layers), layers...)
	for i := range first.blobs {
		if first.blobs[i] == second.blobs[i] || first.diffIDs[i] != second.diffIDs[i] {
			t.Fatalf("layer %d is no other blob of the same diffID", i)
		}
	}
	t.Run("known by diffID", func(t *testing.T) {
		n := newNode(t, settings{})
		n.pull(n.ctx(), first.ref)
		image := n.pull(n.ctx(), second.ref)
		n.expectExtractions(0, 3)
		n.expectLayers(3)
		n.expectTree(n.ctx(), image, second)
		n.checkStore()
	})
	t.Run("found at Commit", func(t *testing.T) {
		n := newNode(t, settings{})
		ctx, other := n.ctx(), n.in(n.addNamespace("b"))
		n.importByClient(ctx, "strata.test/first:1", first.img)
		image := n.importByClient(other, "strata.test/second:1", second.img)
		n.expectExtractions(0, 6)
		n.expectLayers(3)
		n.expectTree(other, image, second)
		n.checkStore()
	})
}

// Who has a layer of a name on a parent gets the same snapshot, whatever it is called.
func TestSharingInTwoNamespaces(t *testing.T) {
	needStrata(t)
	m := newMeter(t)
	f := newFamily(m)
	n := newNode(t, settings{})
	ctx, other := n.ctx(), n.in(n.addNamespace("b"))
	n.pull(ctx, f.first.ref)
	n.forget(ctx, f.first.blobs...)
	m.reset()
	image := n.pull(other, f.first.ref)
	if got := m.servedOf(f.first.blobs); got != 0 {
		t.Errorf("%d bytes were fetched for the second namespace", got)
	}
	n.expectLayers(4)
	n.deleteImage(ctx, f.first.ref)
	n.checkStore()
	n.expectTree(other, image, f.first)
}

// With sharing = "namespace" a namespace has to fetch what another one has, which is
// then kept once; and it learns nothing of what the other has.
func TestSharingPerNamespace(t *testing.T) {
	needStrata(t)
	for name, unpacks := range modes {
		t.Run(name, func(t *testing.T) {
			m := newMeter(t)
			f := newFamily(m)
			n := newNode(t, settings{unpacks: unpacks, daemon: "[snapshotter]\nsharing = 'namespace'\n"})
			ctx, other := n.ctx(), n.in(n.addNamespace("b"))
			n.pull(ctx, f.first.ref)
			n.forget(ctx, f.first.blobs...)
			n.expectNoGift(other, f.first)
			m.reset()
			n.pull(other, f.first.ref)
			for i, blob := range f.first.blobs {
				if m.servedOf([]digest.Digest{blob}) == 0 {
					t.Errorf("the second namespace did not have to fetch layer %d", i)
				}
			}
			n.expectExtractions(0, 4)
			n.expectLayers(4)
			n.checkStore()

			n.forget(other, f.first.blobs...)
			n.pull(other, f.base.ref)
			m.reset()
			image := n.pull(other, f.second.ref)
			if got := m.servedOf(f.shared); got != 0 {
				t.Errorf("%d bytes were fetched that the namespace has pulled before", got)
			}
			n.deleteImage(ctx, f.first.ref)
			n.expectTree(other, image, f.second)
			n.checkStore()
		})
	}
}

// expectNoGift asks for the lowest layer of an image with nothing but its diffID.
func (n *node) expectNoGift(ctx context.Context, p published) {
	n.t.Helper()
	const key = "extract-guess"
	labels := map[string]string{snapshots.LabelSnapshotRef: p.diffIDs[0].String(), snapshots.LabelSnapshotDiffID: p.diffIDs[0].String()}
	mounts, err := n.snapshots().Prepare(ctx, key, "", snapshots.WithLabels(labels))
	if err != nil || mounts[len(mounts)-1].ReadOnly() {
		n.t.Errorf("the second namespace has a layer for knowing its diffID: %v, %v", mounts, err)
	}
	if err == nil {
		n.report("removing a snapshot", n.snapshots().Remove(ctx, key))
	}
}

// With sharing = "off" every chain has its own.
func TestSharingOff(t *testing.T) {
	needStrata(t)
	for name, unpacks := range modes {
		t.Run(name, func(t *testing.T) {
			m := newMeter(t)
			f := newFamily(m)
			n := newNode(t, settings{unpacks: unpacks, daemon: "[snapshotter]\nsharing = 'off'\n"})
			n.pull(n.ctx(), f.first.ref)
			image := n.pull(n.ctx(), f.second.ref)
			n.expectExtractions(0, 8)
			n.expectLayers(8)
			n.expectTree(n.ctx(), image, f.second)
			n.checkStore()
		})
	}
}
