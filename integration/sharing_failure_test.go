// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/containerd/containerd/v2/core/leases"

	"github.com/opencontainers/go-digest"

	"github.com/strata-snapshotter/strata/internal/layertest"
)

// broken is an image on whose third layer a pull fails. The first layer is another
// image's, too; the others are its own.
type broken struct {
	*node
	m         *meter
	ctx       context.Context
	kept, img published
	bad       digest.Digest // the third blob
}

func newBroken(t *testing.T, unpacks int) *broken {
	t.Helper()
	needStrata(t)
	m := newMeter(t)
	layers := heavies("broken", 5, 16<<10)
	b := &broken{m: m, kept: m.publish("kept", layers[:2]...), img: m.publish("broken", append(layers[1:2:2], layers[2:]...)...)}
	b.bad = b.img.blobs[2]
	b.node = newNode(t, settings{unpacks: unpacks})
	b.ctx = b.node.ctx()
	b.pull(b.ctx, b.kept.ref)
	return b
}

// checkNothingLeft makes sure that only the other image's layers are there, then pulls
// again.
func (b *broken) checkNothingLeft(again published) {
	b.t.Helper()
	b.report("collecting garbage", b.collect(b.ctx))
	b.expectLayers(2)
	eventually(b.t, "no snapshot is left", func() error {
		for _, dir := range b.storeDirs() {
			if dir[:6] != "layers" {
				return fmt.Errorf("the store has %v", b.storeDirs())
			}
		}
		return nil
	})
	b.checkStore()
	b.expectTree(b.ctx, b.pull(b.ctx, again.ref), again)
	b.expectLayers(5)
	b.checkStore()
}

// A layer that can't be fetched, or is not what it should be, ends the pull, whichever
// others are extracted, staged or committed by then. Nothing is left of them.
func TestSharingAfterFailures(t *testing.T) {
	for name, unpacks := range modes {
		t.Run(name, func(t *testing.T) {
			t.Run("blob that is not there", func(t *testing.T) {
				b := newBroken(t, unpacks)
				b.m.answer(b.bad, http.NotFound)
				b.expectFailure(b.img.ref)
				b.m.answer(b.bad, nil)
				b.checkNothingLeft(b.img)
			})
			t.Run("other bytes", func(t *testing.T) {
				b := newBroken(t, unpacks)
				b.m.answer(b.bad, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("not this")) })
				b.expectFailure(b.img.ref)
				b.m.answer(b.bad, nil)
				b.checkNothingLeft(b.img)
			})
			t.Run("another diffID", func(t *testing.T) {
				b := newBroken(t, unpacks)
				wrong := b.m.publishImage("wrong", mislabelled(t, b.img.layers), b.img.layers...)
				b.expectFailure(wrong.ref)
				b.checkNothingLeft(b.img)
			})
			t.Run("layer that can't be extracted", func(t *testing.T) {
				b := newBroken(t, unpacks)
				layers := append([]layertest.Layer{}, b.img.layers...)
				layers[2] = append(layertest.Layer{layertest.File("d/../../../x", "outside"), layertest.Hardlink("h", "is-nowhere")}, layers[2]...)
				b.expectFailure(b.m.publish("refused", layers...).ref)
				b.checkNothingLeft(b.img)
			})
		})
	}
}

func (b *broken) expectFailure(ref string) {
	b.t.Helper()
	if _, err := b.tryPull(b.ctx, ref); err == nil {
		b.t.Fatalf("%s was pulled", ref)
	}
}

// A pull that its client gives up while one layer is waited for.
func TestSharingAfterCancellation(t *testing.T) {
	for name, unpacks := range modes {
		t.Run(name, func(t *testing.T) {
			b := newBroken(t, unpacks)
			before := b.extractions()
			asked, release := b.m.hold(b.bad)
			defer release()
			ctx, cancel := context.WithCancel(b.ctx)
			defer cancel()
			pull := b.startPull(ctx, b.img.ref)
			b.m.await(asked)
			eventually(t, "the layers around it are extracted", func() error {
				if got := b.extractions() - before; got < 1 {
					return fmt.Errorf("%d layers were extracted", got)
				}
				return nil
			})
			cancel()
			if _, err := pull.wait(t); err == nil {
				t.Error("the pull that was given up succeeded")
			}
			release()
			b.dropLeases()
			b.checkNothingLeft(b.img)
		})
	}
}

// dropLeases waits until containerd has ended a pull that its client gave up, and lets
// its lease expire: containerd leaves that for a day.
func (b *broken) dropLeases() {
	b.t.Helper()
	eventually(b.t, "containerd has given up, too", func() error {
		all, err := b.client.LeasesService().List(b.ctx)
		for _, l := range all {
			err = errors.Join(err, b.client.LeasesService().Delete(b.ctx, l, leases.SynchronousDelete))
		}
		if got := b.layerDirs(); err == nil && len(got) != 2 {
			err = fmt.Errorf("the store has layers %v", got)
		}
		return err
	})
}

// containerd's own differ on Strata's mounts, with layers in parallel: deletions become
// whiteouts. Nobody has hashed what it extracted, so that it is not shared.
func TestSharingNotOfOtherDiffers(t *testing.T) {
	needStrata(t)
	m := newMeter(t)
	// Directories have entries of their own: containerd's differ does not ask the layers
	// below what theirs are like.
	lower := layertest.Layer{layertest.Dir("d"), layertest.File("d/a", "1"), layertest.File("d/b", "1"), layertest.Dir("d/sub"), layertest.File("d/sub/x", "1")}
	upper := layertest.Layer{layertest.Dir("d"), layertest.Whiteout("d/a"), layertest.Dir("d/sub"), layertest.Opaque("d/sub"), layertest.File("d/sub/y", "2"), layertest.Whiteout("other")}
	first := m.publish("first", lower, upper)
	second := m.publish("second", layertest.Layer{layertest.File("other", "deleted above")}, lower, upper)
	n := newNode(t, settings{unpacks: 3, differ: "walking"})
	n.expectTree(n.ctx(), n.pull(n.ctx(), first.ref), first)
	n.expectTree(n.ctx(), n.pull(n.ctx(), second.ref), second)
	n.expectLayers(5)
	for _, layer := range n.layerJSONs() {
		if layer.DiffID != "" {
			t.Errorf("layer %d has diffID %s, which Strata did not hash", layer.Number, layer.DiffID)
		}
	}
	n.checkStore()
}
