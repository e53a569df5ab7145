// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"archive/tar"
	"context"
	"maps"
	"strings"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/image-spec/identity"

	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testimage"
)

// imageOf makes an image of layers whose right result can be worked out.
func imageOf(t *testing.T, layers []layertest.Layer) v1.Image {
	t.Helper()
	list := make([]testimage.Layer, len(layers))
	for i, layer := range layers {
		for _, e := range layer {
			list[i] = append(list[i], testimage.Entry{Header: *e.Header(), Content: []byte(e.Data)})
		}
	}
	return build(t, list...)
}

// modelled are the layers of the sample image as layertest has them.
func modelled(t *testing.T) []layertest.Layer {
	t.Helper()
	if env.missing != nil {
		unable(t, env.missing.Error())
	}
	layers, err := testimage.Sample(env.busybox)
	if err != nil {
		t.Fatal(err)
	}
	list := make([]layertest.Layer, len(layers))
	for i, layer := range layers {
		for _, e := range layer {
			list[i] = append(list[i], modelledEntry(e))
		}
	}
	return list
}

func modelledEntry(e testimage.Entry) layertest.Entry {
	kinds := map[byte]string{tar.TypeDir: layertest.TypeDir, tar.TypeSymlink: layertest.TypeSymlink}
	kind, ok := kinds[e.Header.Typeflag]
	if !ok {
		kind = layertest.TypeFile
	}
	return layertest.Entry{
		Type: kind, Name: e.Header.Name, Link: e.Header.Linkname, Data: string(e.Content),
		Mode: layertest.Octal(e.Header.Mode), UID: e.Header.Uid, GID: e.Header.Gid, Mtime: layertest.Epoch,
	}
}

// truth is what the image's layers, one after another, have to look like. Devices
// can't be made in a user namespace and are left out there.
func truth(t *testing.T, layers []layertest.Layer) layertest.Tree {
	t.Helper()
	model, err := layertest.Truth(layers)
	if err != nil {
		t.Fatal(err)
	}
	tree := model.Tree()
	if isRootless() {
		maps.DeleteFunc(tree, func(_, line string) bool {
			return strings.HasPrefix(line, layertest.TypeChar+" ") || strings.HasPrefix(line, layertest.TypeBlock+" ")
		})
	}
	return tree
}

// mergedTree mounts a View of an image and reads it.
func (n *node) mergedTree(ctx context.Context, image containerd.Image) layertest.Tree {
	n.t.Helper()
	ids, err := image.RootFS(ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	const key = "tree"
	mounts, err := n.snapshots().View(ctx, key, identity.ChainID(ids).String(),
		snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "now"}))
	if err != nil {
		n.t.Fatalf("view of %s: %v", image.Name(), err)
	}
	defer func() { n.report("removing the view", n.snapshots().Remove(ctx, key)) }()
	return n.treeOf(ctx, mounts)
}

func (n *node) treeOf(ctx context.Context, mounts []mount.Mount) (tree layertest.Tree) {
	n.t.Helper()
	err := mount.WithReadonlyTempMount(ctx, mounts, func(root string) (err error) {
		tree, err = layertest.Dump(root)
		return err
	})
	if err != nil {
		n.t.Fatalf("looking at %v: %v", mounts, err)
	}
	return tree
}

func compareTrees(t *testing.T, what string, want, got layertest.Tree) {
	t.Helper()
	if diffs := want.Diff(got); len(diffs) > 0 {
		t.Errorf("%s:\n%s", what, strings.Join(diffs, "\n"))
	}
}
