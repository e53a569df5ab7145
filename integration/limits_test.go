// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	diffproxy "github.com/containerd/containerd/v2/core/diff/proxy"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/strata-snapshotter/strata/internal/testimage"
)

// Configured limits hold for layers of Strata's own snapshots, and for those that
// are extracted elsewhere. A refused layer leaves nothing behind.
func TestConfiguredLimits(t *testing.T) {
	needStrata(t)
	n := newNode(t, settings{daemon: "[limits]\nentries = 3\n"})
	const message = "over the limit of 3"
	if _, err := n.tryImport(n.ctx(), sampleRef, sample(t)); err == nil || !strings.Contains(err.Error(), message) {
		t.Errorf("importing an image with many entries: %v", err)
	}

	var blob bytes.Buffer
	layer := testimage.Layer{testimage.Dir("1"), testimage.Dir("2"), testimage.Dir("3"), testimage.Dir("4")}
	if err := layer.Tar(&blob); err != nil {
		t.Fatal(err)
	}
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(blob.Bytes()), Size: int64(blob.Len())}
	keep := content.WithLabels(map[string]string{"containerd.io/gc.root": "now"})
	if err := content.WriteBlob(n.ctx(), n.client.ContentStore(), "four", &blob, desc, keep); err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("unix://"+filepath.Join(n.dir, "strata.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // nothing depends on it
	applier := diffproxy.NewDiffApplier(diffapi.NewDiffClient(conn)).(diff.Applier)
	_, err = applier.Apply(n.ctx(), desc, []mount.Mount{{Type: "bind", Source: t.TempDir(), Options: []string{"rbind", "rw"}}})
	if !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), message) {
		t.Errorf("applying to a directory: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(n.root, "tmpmounts")); err != nil || len(left) > 0 {
		t.Errorf("of the mount for it there is %v, %v", left, err)
	}
}
