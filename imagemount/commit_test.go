// SPDX-License-Identifier: Apache-2.0

package imagemount

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/imagestore"
	"github.com/strata-snapshotter/strata/internal/testimage"
)

func TestCommit(t *testing.T) {
	for _, program := range programs {
		t.Run(program, func(t *testing.T) {
			f := newFixture(t, program)
			f.sample()
			dir := f.mount("m", Request{Access: ReadWrite, Name: "work"})
			change(t, dir)
			want := f.tree(dir)
			image := f.commit(dir, "example.test/commit:1")
			again := f.mount("again", Request{Ref: "example.test/commit:1"})
			if diffs := want.Diff(f.tree(again)); len(diffs) > 0 {
				t.Errorf("the commit: %s", strings.Join(diffs, "\n"))
			}
			must(t, f.store.Check(ctx, image))
			// A commit on the commit, and the same thing a second time.
			rw := f.mount("more", Request{Ref: "example.test/commit:1", Access: ReadWrite, Name: "more"})
			must(t, f.Unmount(ctx, rw))
			f.commit("more", "example.test/commit:2")
			same := f.commit("work", "example.test/commit:1")
			if same.ChainID != image.ChainID {
				t.Errorf("the same changes have chain %s and %s", image.ChainID, same.ChainID)
			}
		})
	}
}

// The configuration is the image's, with a line more of history; what Strata does not
// know of it stays. Layers are of the family of types that the image is of.
func TestCommitConfig(t *testing.T) {
	for name, media := range map[string]struct{ manifest, config, layer types.MediaType }{
		"docker": {types.DockerManifestSchema2, types.DockerConfigJSON, types.DockerLayer},
		"oci":    {types.OCIManifestSchema1, types.OCIConfigJSON, types.OCILayer},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, config.MountProgramKernel)
			image, err := testimage.Build([]string{"/run"}, testimage.Layer{testimage.File("f", "f")})
			must(t, err)
			file, err := image.ConfigFile()
			must(t, err)
			file = file.DeepCopy()
			file.Config.Healthcheck = &v1.HealthConfig{Test: []string{"CMD", "true"}, Interval: time.Minute}
			file.OSVersion, file.Author = "7", "them"
			image, err = mutate.ConfigFile(image, file)
			must(t, err)
			f.loadImage(ref, mutate.ConfigMediaType(mutate.MediaType(image, media.manifest), media.config))
			f.mount("m", Request{Access: ReadWrite, Name: "work"})
			base, err := f.store.Get(ctx, ref, "")
			must(t, err)
			got := f.commit("work", "example.test/commit:1")
			checkCommitConfig(t, f, base, got)
			top := got.Layers[len(got.Layers)-1]
			if got.Manifest.MediaType != base.Manifest.MediaType || strings.Contains(top.MediaType, "docker") != strings.Contains(base.Manifest.MediaType, "docker") {
				t.Errorf("media types: %s, layer %s", got.Manifest.MediaType, top.MediaType)
			}
		})
	}
}

func checkCommitConfig(t *testing.T, f *fixture, base, got imagestore.Image) {
	t.Helper()
	before, after := f.config(base), f.config(got)
	var history []ocispec.History
	must(t, json.Unmarshal(after["history"], &history))
	last := history[len(history)-1]
	if last.Author != "me" || last.Comment != "changed" || !last.Created.Equal(time.Unix(1_700_000_000, 0)) {
		t.Errorf("history: %+v", last)
	}
	if string(after["author"]) != `"me"` {
		t.Errorf("author: %s", after["author"])
	}
	for _, key := range []string{"history", "author", "created", "rootfs"} {
		delete(before, key)
		delete(after, key)
	}
	if !reflect.DeepEqual(before, after) {
		t.Errorf("configuration %s\nwas %s", after, before)
	}
	if !slices.Equal(got.DiffIDs[:len(base.DiffIDs)], base.DiffIDs) || len(got.DiffIDs) != len(base.DiffIDs)+1 {
		t.Errorf("diffIDs %v on %v", got.DiffIDs, base.DiffIDs)
	}
}

func (f *fixture) config(image imagestore.Image) (fields map[string]json.RawMessage) {
	f.t.Helper()
	data, err := content.ReadBlob(f.store.Context(ctx), f.store.Content(), image.Config)
	must(f.t, err)
	must(f.t, json.Unmarshal(data, &fields))
	return fields
}

func TestCommitRefused(t *testing.T) {
	f := newFixture(t, config.MountProgramKernel)
	f.sample()
	ro := f.mount("ro", Request{})
	f.mount("rw", Request{Access: ReadWrite, Name: "work"})
	for _, tc := range []struct {
		name, target, ref string
		is                func(error) bool
	}{
		{"nothing", "nosuch", "example.test/c:1", errdefs.IsNotFound},
		{"read-only", ro, "example.test/c:1", errdefs.IsFailedPrecondition},
		{"no reference", "work", "A B", isReference},
	} {
		if _, err := f.Commit(ctx, tc.target, tc.ref, Note{}); !tc.is(err) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}
