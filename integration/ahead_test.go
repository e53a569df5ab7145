// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"

	"github.com/strata-snapshotter/strata/internal/layertest"
)

// wide is a layer that takes a while: others are extracted meanwhile.
func wide(files int) (l layertest.Layer) {
	l = append(l, layertest.Dir("wide"))
	for i := range files {
		l = append(l, layertest.File(fmt.Sprintf("wide/%d", i), "x"))
	}
	return l
}

// An image whose layers are unpacked one after the other: those that come next are extracted
// meanwhile, each once, whoever unpacks, and the image is what its layers mean.
func TestLayersAreUnpackedAhead(t *testing.T) {
	needStrata(t)
	m := newMeter(t)
	layers := append([]layertest.Layer{wide(6000)}, heavies("next", 8, 4<<10)...)
	p := m.publish("ahead", layers...)
	pull := func(n *node, ctx context.Context) containerd.Image { return n.pull(ctx, p.ref) }
	byClient := func(n *node, ctx context.Context) containerd.Image { return n.importByClient(ctx, p.ref, p.img) }
	for name, test := range map[string]struct {
		settings settings
		get      func(*node, context.Context) containerd.Image
		none     bool
	}{
		"pull":           {get: pull},
		"by client":      {get: byClient},
		"containerd 1.7": {settings: settings{containerd: needProgram(t, "containerd17"), shims: filepath.Dir(needProgram(t, "containerd17-shim/containerd-shim-runc-v2")), version: 2}, get: byClient},
		"in parallel":    {settings: settings{unpacks: 3}, get: pull},
		"none":           {settings: settings{daemon: "[snapshotter]\nunpack_ahead = 0\n"}, get: pull, none: true},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, test.settings)
			ctx := n.ctx()
			image := test.get(n, ctx)
			ahead := n.logCount(`msg="a layer was unpacked before it was asked for"`)
			if test.none != (ahead == 0) && name != "in parallel" { // there are always others to do
				t.Errorf("%d layers were unpacked ahead", ahead)
			}
			n.expectExtractions(0, len(layers))
			n.expectLayers(len(layers))
			n.expectTree(ctx, image, p)
			n.checkStore()
			n.deleteImage(ctx, p.ref)
			n.expectLayers(0)
		})
	}
}

// A client that gives up leaves nothing behind: what was extracted ahead goes, too, and what
// was recorded of it with the garbage collection.
func TestLayersAheadOfAPullThatFails(t *testing.T) {
	needStrata(t)
	m := newMeter(t)
	layers := append([]layertest.Layer{wide(2000)}, heavies("never", 4, 4<<10)...)
	p := m.publish("broken", layers...)
	n := newNode(t, settings{})
	ctx := n.ctx()
	_, release := m.hold(p.blobs[4])
	defer release()
	cancelled, cancel := context.WithCancel(ctx)
	failed := make(chan error, 1)
	go func() {
		_, err := n.tryPull(cancelled, p.ref)
		failed <- err
	}()
	eventually(t, "the layers below the one that is held are there", func() error {
		if got := n.layerDirs(); len(got) != 4 {
			return fmt.Errorf("layers %v", got)
		}
		if n.logCount(`msg="a layer that is here already serves one chain more"`) == 0 {
			return errors.New("none was asked for")
		}
		return nil
	})
	cancel()
	if err := <-failed; err == nil {
		t.Fatal("a pull whose client is gone went well")
	}
	// A client that is cancelled leaves its lease to its expiry, and the lease what it had.
	manager := n.client.LeasesService()
	left, err := manager.List(ctx)
	n.report("listing leases", err)
	for _, lease := range left {
		n.report("deleting a lease", manager.Delete(ctx, lease))
	}
	n.report("collecting garbage", n.collect(ctx))
	n.expectLayers(0)
	n.checkStore()
}
