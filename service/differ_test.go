// SPDX-License-Identifier: Apache-2.0

package service

import (
	"os"
	"path/filepath"
	"testing"

	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/diff/proxy"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/config"
)

// TestDifferIsServed asks for what needs no containerd: there is none here.
func TestDifferIsServed(t *testing.T) {
	cfg := start(t, func(*config.Config) {})
	remote := proxy.NewDiffApplier(diffapi.NewDiffClient(dial(t, cfg.Address)))
	differ, ok := remote.(interface {
		diff.Applier
		diff.Comparer
	})
	if !ok {
		t.Fatalf("%T is no differ", remote)
	}
	_, err := differ.Apply(t.Context(), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer + "+encrypted"}, nil)
	if !errdefs.IsNotImplemented(err) {
		t.Errorf("an encrypted layer: %v", err)
	}
	if _, err := differ.Compare(t.Context(), nil, nil, diff.WithMediaType("x/unknown")); !errdefs.IsNotImplemented(err) {
		t.Errorf("an unknown media type: %v", err)
	}
}

func TestBelow(t *testing.T) {
	dir := t.TempDir()
	root, link := filepath.Join(dir, "root"), filepath.Join(dir, "link")
	must(t, os.MkdirAll(filepath.Join(root, "layers", "1", "fs"), 0o700))
	must(t, os.MkdirAll(root+"-other/layers/1/fs", 0o700))
	must(t, os.Symlink(root, link))
	owns := below(root)
	for path, want := range map[string]bool{
		root + "/layers/1/fs":       true,
		link + "/layers/1/fs":       true,
		root + "-other/layers/1/fs": false,
		root + "/layers/2/fs":       false, // not there
		root:                        false,
		"":                          false,
	} {
		if owns(path) != want {
			t.Errorf("%q: %v", path, !want)
		}
	}
	if below("")(root) {
		t.Error("no root has a directory")
	}
}
