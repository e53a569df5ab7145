// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"maps"
	"slices"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/transfer/image"
	"github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/internal/testimage"
)

// Strata's differ gives what containerd's gives, in whatever order layers come, into
// Strata's snapshots and into those of others.
func TestDifferUnpacks(t *testing.T) {
	needStrata(t)
	layers := append([]testimage.Layer{base(t)}, changes()...)
	for name, s := range map[string]settings{
		"in order":                {},
		"in parallel":             {unpacks: 4},
		"content over the socket": {unpacks: 4, daemon: "content_root = '/nowhere'\n"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, s)
			ref := startRegistry(t) + "/changes:1"
			push(t, ref, build(t, layers...))
			i := n.pull(n.ctx(), ref)
			got := n.mergedView(n.ctx(), i, n.settings.snapshotter)
			n.pullFor(n.ctx(), ref, "overlayfs")
			compareViews(t, got, n.mergedView(n.ctx(), i, "overlayfs"))
			n.checkDiffer(s)
		})
	}
}

// The diff-service unpacks for clients. Here it has Strata's differ unpack into
// containerd's own snapshotter, by mounts that Strata knows nothing of.
func TestDifferUnpacksIntoOverlayfs(t *testing.T) {
	needStrata(t)
	n := newNode(t, settings{})
	ref := startRegistry(t) + "/changes:1"
	push(t, ref, build(t, append([]testimage.Layer{base(t)}, changes()...)...))
	i := n.pull(n.ctx(), ref)
	if err := i.Unpack(n.ctx(), "overlayfs"); err != nil {
		t.Fatal(err)
	}
	n.pullFor(n.ctx(), ref, "native")
	compareViews(t, n.mergedView(n.ctx(), i, "overlayfs"), n.mergedView(n.ctx(), i, "native"))
}

// pullFor pulls for a snapshotter of containerd's own, with containerd's differ.
func (n *node) pullFor(ctx context.Context, ref, snapshotter string) containerd.Image {
	n.t.Helper()
	source, err := registry.NewOCIRegistry(ctx, ref)
	if err != nil {
		n.t.Fatal(err)
	}
	platform := platforms.DefaultSpec()
	unpack := image.WithUnpack(ocispec.Platform{OS: platform.OS, Architecture: platform.Architecture}, snapshotter)
	if err := n.client.Transfer(ctx, source, image.NewStore(ref, unpack, image.WithPlatforms(platform))); err != nil {
		n.t.Fatalf("pulling %s for %s: %v", ref, snapshotter, err)
	}
	i, err := n.client.GetImage(ctx, ref)
	if err != nil {
		n.t.Fatal(err)
	}
	return i
}

func compareViews(t *testing.T, got, want map[string]string) {
	t.Helper()
	for _, path := range slices.Sorted(maps.Keys(want)) {
		if got[path] != want[path] {
			t.Errorf("%s: %q, want %q", path, got[path], want[path])
		}
	}
	for path, entry := range got {
		if _, ok := want[path]; !ok {
			t.Errorf("%s: %q, want nothing", path, entry)
		}
	}
}
