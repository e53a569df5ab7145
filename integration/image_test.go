// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/core/transfer/archive"
	"github.com/containerd/containerd/v2/core/transfer/image"
	"github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/platforms"
	gcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/internal/testimage"
)

// sample is the image of testimage.Sample; proof is what it shows when run.
const sampleRef = "strata.test/sample:1"

// proof reads every layer of a Sample image and looks for what its layers deleted.
const proof = `cat /etc/greeting /data/keep /data/added /data/replaced/after
stat -c "%n %u:%g %a" /srv/owned
ls /data /data/replaced`

const proven = testimage.Greeting + `kept
added
after
/srv/owned 1000:1000 640
/data:
added
keep
replaced

/data/replaced:
after
`

func sample(t *testing.T) v1.Image {
	t.Helper()
	if env.missing != nil {
		unable(t, env.missing.Error())
	}
	layers, err := testimage.Sample(env.busybox)
	if err != nil {
		t.Fatal(err)
	}
	return build(t, layers...)
}

func build(t *testing.T, layers ...testimage.Layer) v1.Image {
	t.Helper()
	img, err := testimage.Build([]string{"/bin/sh"}, layers...)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func base(t *testing.T) testimage.Layer {
	t.Helper()
	if env.missing != nil {
		unable(t, env.missing.Error())
	}
	layer, err := testimage.Base(env.busybox)
	if err != nil {
		t.Fatal(err)
	}
	return layer
}

// importImage imports an archive through the transfer service, as ctr does, and
// unpacks it for the snapshotters.
func (n *node) importImage(ctx context.Context, ref string, img v1.Image) containerd.Image {
	n.t.Helper()
	i, err := n.tryImport(ctx, ref, img)
	if err != nil {
		n.t.Fatalf("importing %s: %v", ref, err)
	}
	return i
}

func (n *node) tryImport(ctx context.Context, ref string, img v1.Image) (containerd.Image, error) {
	f, err := n.archive(ref, img)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	return n.transfer(ctx, ref, archive.NewImageImportStream(f, ""))
}

// archive writes img to a file and opens it. The file goes with the node's directory.
func (n *node) archive(ref string, img v1.Image) (*os.File, error) {
	name := strings.NewReplacer("/", "_", ":", "_").Replace(ref) + fmt.Sprint(counter.Add(1)) + ".tar"
	path := filepath.Join(n.dir, name)
	if err := testimage.WriteArchive(path, ref, img); err != nil {
		return nil, err
	}
	return os.Open(path)
}

// pull pulls from a registry through the transfer service.
func (n *node) pull(ctx context.Context, ref string) containerd.Image {
	n.t.Helper()
	source, err := registry.NewOCIRegistry(ctx, ref)
	if err != nil {
		n.t.Fatal(err)
	}
	i, err := n.transfer(ctx, ref, source)
	if err != nil {
		n.t.Fatalf("pulling %s: %v", ref, err)
	}
	return i
}

func (n *node) transfer(ctx context.Context, ref string, source any) (containerd.Image, error) {
	platform := platforms.DefaultSpec()
	unpack := image.WithUnpack(ocispec.Platform{OS: platform.OS, Architecture: platform.Architecture}, n.settings.snapshotter)
	opts := []image.StoreOpt{unpack, image.WithPlatforms(platform)}
	name := ref
	if _, isPull := source.(transfer.ImageFetcher); !isPull {
		// An archive brings its own names. A store with a name would make those go
		// with an image of that name, which never comes to be.
		name = ""
		opts = append(opts, image.WithNamedPrefix("strata.test", true))
	}
	if err := n.client.Transfer(ctx, source, image.NewStore(name, opts...)); err != nil {
		return nil, err
	}
	i, err := n.client.GetImage(ctx, ref)
	if err != nil {
		return nil, err
	}
	ok, err := i.IsUnpacked(ctx, n.settings.snapshotter)
	if err == nil && !ok {
		err = errors.New("it is not unpacked")
	}
	return i, err
}

// deleteImage removes an image and waits for containerd's garbage collection.
func (n *node) deleteImage(ctx context.Context, ref string) {
	n.t.Helper()
	if err := n.tryDelete(ctx, ref); err != nil {
		n.t.Fatalf("deleting %s: %v", ref, err)
	}
}

func (n *node) tryDelete(ctx context.Context, ref string) error {
	return n.client.ImageService().Delete(ctx, ref, images.SynchronousDelete())
}

// startRegistry serves a registry on this machine; its address is 127.0.0.1:PORT,
// where clients use plain HTTP.
func startRegistry(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(gcr.New(gcr.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func push(t *testing.T, ref string, img v1.Image) {
	t.Helper()
	if err := testimage.Push(ref, img); err != nil {
		t.Fatalf("pushing %s: %v", ref, err)
	}
}
