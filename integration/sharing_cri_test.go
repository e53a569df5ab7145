// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/strata-snapshotter/strata/internal/layertest"
)

// imageNode is a node with the kubelet's view of its images. There is no network for
// pods.
type imageNode struct {
	*node
	images cri.ImageServiceClient
}

func newImageNode(t *testing.T, s settings) *imageNode {
	t.Helper()
	s.cri = &criSettings{pause: "strata.test/pause:1", cniBin: t.TempDir(), cniConf: t.TempDir()}
	n := newNode(t, s)
	n.namespace = criNamespace
	n.namespaces = append(n.namespaces, criNamespace)
	conn, err := grpc.NewClient("unix://"+n.address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // nothing depends on it
	i := &imageNode{node: n, images: cri.NewImageServiceClient(conn)}
	eventually(t, "the CRI answers", func() error {
		_, err := i.images.ListImages(n.ctx(), &cri.ListImagesRequest{})
		return err
	})
	return i
}

func (i *imageNode) pullCRI(ctx context.Context, p published) {
	i.t.Helper()
	if _, err := i.images.PullImage(ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: p.ref}}); err != nil {
		i.t.Fatalf("pulling %s: %v", p.ref, err)
	}
}

func (i *imageNode) removeCRI(ctx context.Context, p published) {
	i.t.Helper()
	if _, err := i.images.RemoveImage(ctx, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: p.ref}}); err != nil {
		i.t.Fatalf("removing %s: %v", p.ref, err)
	}
	i.report("collecting garbage", i.collect(ctx))
}

// The CRI pulls what is shared as little as others do. containerd 1.7 says nothing of
// diffIDs, only which blob it has: that is remembered.
func TestSharingOfCRI(t *testing.T) {
	needStrata(t)
	for name, s := range map[string]settings{
		"in order":       {},
		"in parallel":    {unpacks: 3},
		"containerd 1.7": {version: 2},
	} {
		t.Run(name, func(t *testing.T) {
			if s.version == 2 {
				s.containerd = needProgram(t, "containerd17")
				s.shims = filepath.Dir(needProgram(t, "containerd17-shim/containerd-shim-runc-v2"))
			}
			m := newMeter(t)
			f := newFamily(m)
			i := newImageNode(t, s)
			ctx := i.ctx()
			i.pullCRI(ctx, f.first)
			i.pullCRI(ctx, f.base)
			i.forget(ctx, append(f.shared, f.base.blobs...)...)
			m.reset()
			before := i.extractions()
			i.pullCRI(ctx, f.second)
			if got := m.servedOf(append(f.shared, f.base.blobs...)); got != 0 {
				t.Errorf("%d bytes of layers were fetched that are there", got)
			}
			i.expectExtractions(before, 0)
			i.expectLayers(5)
			i.removeCRI(ctx, f.first)
			image, err := i.client.GetImage(ctx, f.second.ref)
			if err != nil {
				t.Fatal(err)
			}
			i.expectTree(ctx, image, f.second)
			i.checkStore()
		})
	}
}

// The sum over all snapshots is what the disk holds, whichever images go. So is what
// the kubelet is told, as long as containerd asks: it asks for each committed snapshot
// once, and not again when a layer's bytes become another snapshot's.
func TestSharingUsage(t *testing.T) {
	needStrata(t)
	m := newMeter(t)
	layers := heavies("usage", 4, 3<<20)
	implicit := layertest.Layer{layertest.File("usage-a/implicit/file", strings.Repeat("x", 1<<16))}
	images := []published{
		m.publish("one", layers[0], layers[1], layers[2], implicit),
		m.publish("two", layers[1], layers[0], layers[2], layers[1], implicit),
		m.publish("three", layers[3], layers[2], layers[1]),
	}
	i := newImageNode(t, settings{unpacks: 3})
	ctx := i.ctx()
	for _, p := range images {
		i.pullCRI(ctx, p)
		i.checkUsage(ctx)
		eventually(t, "the kubelet's figure after a pull", func() error { return i.imageFsIsRight(ctx) })
	}
	for _, p := range images[:2] {
		i.removeCRI(ctx, p)
		i.checkUsage(ctx)
	}
	i.restartContainerd()
	eventually(t, "the kubelet's figure after a restart of containerd", func() error { return i.imageFsIsRight(ctx) })
	i.checkStore()
}

// checkUsage compares the sum of the snapshots' usages with the disk.
func (i *imageNode) checkUsage(ctx context.Context) {
	i.t.Helper()
	eventually(i.t, "the snapshots take what the disk holds", func() error {
		var sum snapshots.Usage
		err := i.snapshots().Walk(ctx, func(ctx context.Context, info snapshots.Info) error {
			usage, err := i.snapshots().Usage(ctx, info.Name)
			sum.Add(usage)
			return err
		})
		if err != nil {
			return err
		}
		return i.near("the snapshots", sum.Size)
	})
}

// imageFsIsRight compares the kubelet's figure with the disk.
func (i *imageNode) imageFsIsRight(ctx context.Context) error {
	r, err := i.images.ImageFsInfo(ctx, &cri.ImageFsInfoRequest{})
	if err != nil {
		return err
	}
	var sum int64
	for _, fs := range r.GetImageFilesystems() {
		sum += int64(fs.GetUsedBytes().GetValue())
	}
	return i.near("the image file system", sum)
}

// near holds a figure against what the store takes, within 1 %. What a layer has beside
// its files, two blocks, is in nobody's figure.
func (i *imageNode) near(what string, bytes int64) error {
	disk := i.diskUsage()
	if diff := bytes - disk; diff > disk/100 || -diff > disk/100 {
		return fmt.Errorf("%s take %d bytes, the disk holds %d", what, bytes, disk)
	}
	return nil
}

// diskUsage is du of the store's layers and snapshots.
func (i *imageNode) diskUsage() (sum int64) {
	i.t.Helper()
	seen := map[uint64]bool{}
	for _, dir := range []string{"layers", "snapshots", "staging", "trash"} {
		err := filepath.WalkDir(filepath.Join(i.root, dir), func(_ string, d fs.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil // removed this moment
			}
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return nil
			}
			if st := info.Sys().(*syscall.Stat_t); !seen[st.Ino] {
				seen[st.Ino] = true
				sum += st.Blocks * 512
			}
			return nil
		})
		if err != nil {
			i.t.Fatal(err)
		}
	}
	return sum
}

// restartContainerd stops containerd and starts it again on the same Strata.
func (n *node) restartContainerd() {
	n.t.Helper()
	n.containerd.stop(n.t)
	n.containerd = startProcess(n.t, n.dir, n.settings.shims, n.settings.containerd, "--config", filepath.Join(n.dir, "containerd.toml"))
	n.connect()
	n.waitSnapshotter()
}
