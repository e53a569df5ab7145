// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"fmt"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"github.com/strata-snapshotter/strata/internal/layertest"
)

// pulling is a pull under way.
type pulling struct {
	image containerd.Image
	err   error
	done  chan struct{}
}

func (n *node) startPull(ctx context.Context, ref string) *pulling {
	p := &pulling{done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.image, p.err = n.tryPull(ctx, ref)
	}()
	return p
}

func (p *pulling) wait(t *testing.T) (containerd.Image, error) {
	t.Helper()
	<-p.done // the context of a pull ends
	return p.image, p.err
}

// collectMeanwhile has containerd collect again and again until stop is called.
func (n *node) collectMeanwhile(ctx context.Context) (stop func()) {
	end, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-end:
				ended <- nil
				return
			default:
			}
			if err := n.collect(ctx); err != nil {
				ended <- err
				return
			}
		}
	}()
	return func() {
		n.t.Helper()
		close(end)
		n.report("collecting garbage", <-ended)
	}
}

// An image goes while another one is being pulled that shares its layers: before, or
// after, the pull has them.
func TestSharingWithImageThatGoes(t *testing.T) {
	needStrata(t)
	for name, unpacks := range modes {
		t.Run(name, func(t *testing.T) {
			m := newMeter(t)
			f := newFamily(m)
			n := newNode(t, settings{unpacks: unpacks})
			ctx := n.ctx()
			n.pull(ctx, f.first.ref)
			stop := n.collectMeanwhile(ctx)
			asked, release := m.hold(f.second.blobs[0])
			defer release()
			pull := n.startPull(ctx, f.second.ref)
			m.await(asked)
			n.deleteImage(ctx, f.first.ref)
			release()
			image, err := pull.wait(t)
			if err != nil {
				t.Fatalf("the pull: %v", err)
			}
			stop()
			n.expectTree(ctx, image, f.second)
			n.expectLayers(4)
			n.checkStore()
		})
	}
}

// Images come and go that share layers in different order, and collections with them.
func TestSharingUnderCollections(t *testing.T) {
	needStrata(t)
	const workers, rounds = 4, 4
	m := newMeter(t)
	layers := heavies("shared", 4, 8<<10)
	var images []published
	for i := range workers {
		turned := append(append([]layertest.Layer{}, layers[i:]...), layers[:i]...)
		images = append(images, m.publish(fmt.Sprintf("turned-%d", i), turned...))
	}
	n := newNode(t, settings{unpacks: 3})
	stop := n.collectMeanwhile(n.ctx())
	group, ctx := errgroup.WithContext(n.ctx())
	for _, p := range images {
		group.Go(func() error {
			for range rounds {
				if err := n.tryDelete(ctx, p.ref); err != nil && !errdefs.IsNotFound(err) {
					return fmt.Errorf("deleting %s: %w", p.ref, err)
				}
				if _, err := n.tryPull(ctx, p.ref); err != nil {
					return fmt.Errorf("pulling %s: %w", p.ref, err)
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	stop()
	n.expectLayers(4)
	n.checkStore()
	for _, p := range images {
		image, err := n.client.GetImage(n.ctx(), p.ref)
		if err != nil {
			t.Fatal(err)
		}
		n.expectTree(n.ctx(), image, p)
	}
}

// Eight clients, which containerd does not keep from doing the same at the same time,
// pull one image: each layer is extracted once.
func TestSharingByClientsAtOnce(t *testing.T) {
	needStrata(t)
	m := newMeter(t)
	p := m.publish("wanted", heavies("wanted", 4, bulk)...)
	n := newNode(t, settings{})
	contexts := []context.Context{n.ctx(), n.in(n.addNamespace("b"))}
	var group errgroup.Group
	for i := range 8 {
		group.Go(func() error { return n.pullByClient(contexts[i%2], p.ref) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	n.expectExtractions(0, 4)
	n.expectLayers(4)
	n.checkStore()
	image, err := n.client.GetImage(contexts[1], p.ref)
	if err != nil {
		t.Fatal(err)
	}
	n.deleteImage(contexts[0], p.ref)
	n.expectTree(contexts[1], image, p)
	n.checkStore()
}

// pullByClient is `ctr images pull --local`: the client fetches and unpacks.
func (n *node) pullByClient(ctx context.Context, ref string) error {
	client, err := containerd.New(n.address())
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }() // nothing depends on it
	_, err = client.Pull(ctx, ref, containerd.WithPullUnpack, containerd.WithPullSnapshotter(n.settings.snapshotter))
	return err
}
