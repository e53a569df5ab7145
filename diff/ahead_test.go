// SPDX-License-Identifier: Apache-2.0

package diff_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/diff"
	"github.com/strata-snapshotter/strata/internal/testimage"
)

// keeper extracts what it is given into a directory of its own, and remembers it.
type keeper struct {
	t *testing.T

	mu       sync.Mutex
	wait     chan struct{} // where it is there, nothing is begun before it is closed
	layers   []diff.AheadLayer
	errs     map[digest.Digest]error
	followed [][]digest.Digest
	giveUp   func()
	ended    int // images that are no longer followed
	failed   int // those of them that were given up
}

func (k *keeper) UnpackAhead() int              { return 1 }
func (k *keeper) Extracts(m []mount.Mount) bool { return m[0].Type == "bind" }

func (k *keeper) Follow(_ string, chainIDs []digest.Digest, giveUp func()) func(error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.followed, k.giveUp = append(k.followed, chainIDs), giveUp
	return func(err error) {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.ended++; err != nil {
			k.failed++
		}
	}
}

func (k *keeper) Ahead(ctx context.Context, l diff.AheadLayer, extract func(context.Context, *os.File, archive.Options) (archive.Result, error)) error {
	if k.wait != nil {
		select {
		case <-k.wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	dir, err := os.Open(k.t.TempDir())
	if err != nil {
		return err
	}
	result, err := extract(ctx, dir, archive.Options{})
	err = errors.Join(err, dir.Close())
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.errs[l.Blob.Digest] = err; err == nil {
		if result.DiffID != l.DiffID {
			k.t.Errorf("layer %s is %s for its image", result.DiffID, l.DiffID)
		}
		k.layers = append(k.layers, l)
	}
	return err
}

// blobs are those of the layers that were extracted, sorted.
func (k *keeper) blobs() (all []digest.Digest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, l := range k.layers {
		all = append(all, l.Blob.Digest)
	}
	slices.Sort(all)
	return all
}

func (k *keeper) idle() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.followed) > 0 && k.ended == len(k.followed)
}

// picture is an image of layers with one file each.
type picture struct {
	s       *store
	layers  []ocispec.Descriptor
	blobs   [][]byte
	diffIDs []digest.Digest
}

func (s *store) picture(names ...string) picture {
	p := picture{s: s}
	for _, name := range names {
		plain := tarOf(s.t, testimage.File(name, name))
		blob := gzipped(s.t, plain)
		p.layers = append(p.layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(blob), Size: int64(len(blob))})
		p.blobs, p.diffIDs = append(p.blobs, blob), append(p.diffIDs, digest.FromBytes(plain))
	}
	return p
}

// fetch stores the blobs of layers.
func (p picture) fetch(layers ...int) {
	p.s.t.Helper()
	for _, i := range layers {
		p.s.put(p.layers[i].MediaType, p.blobs[i])
	}
}

// name stores manifest and config, with the labels that a pull gives them.
func (p picture) name(labels func(ocispec.Descriptor) []string) ocispec.Descriptor {
	p.s.t.Helper()
	config, err := json.Marshal(ocispec.Image{RootFS: ocispec.RootFS{Type: "layers", DiffIDs: p.diffIDs}})
	must(p.s.t, err)
	return p.nameWith(p.s.put(ocispec.MediaTypeImageConfig, config), labels)
}

func (p picture) nameWith(config ocispec.Descriptor, labels func(ocispec.Descriptor) []string) ocispec.Descriptor {
	t := p.s.t
	t.Helper()
	manifest := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: p.layers, Config: config}
	manifest.SchemaVersion = 2
	data, err := json.Marshal(manifest)
	must(t, err)
	desc := p.s.put(ocispec.MediaTypeImageManifest, data)
	store := p.s.db.ContentStore()
	_, err = images.SetChildrenMappedLabels(store, images.ChildrenHandler(store), labels)(inNamespace(t), desc)
	must(t, err)
	return desc
}

func (p picture) expect(k *keeper, layers ...int) {
	p.s.t.Helper()
	var want []digest.Digest
	for _, i := range layers {
		want = append(want, p.layers[i].Digest)
	}
	slices.Sort(want)
	until(p.s.t, fmt.Sprintf("layers %v are extracted", layers), func() bool { return slices.Equal(k.blobs(), want) })
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 1000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("not so after ten seconds: %s", what)
}

func newForesight(t *testing.T, s *store) (*diff.Differ, *keeper) {
	t.Helper()
	k := &keeper{t: t, errs: map[digest.Digest]error{}}
	d := diff.New(diff.Config{Services: s.services(), Ahead: k})
	t.Cleanup(func() { must(t, d.Close()) })
	return d, k
}

func (p picture) apply(d *diff.Differ, i int) error {
	_, err := d.Apply(inNamespace(p.s.t), p.layers[i], bindMount(p.s.t.TempDir(), "rw"))
	return err
}

// The layers above the one that is applied are extracted, also where containerd keeps no
// labels of layers (discard_unpacked_layers).
func TestLayersAbove(t *testing.T) {
	for name, labels := range map[string]func(ocispec.Descriptor) []string{"labels": nil, "discarded": images.ChildGCLabelsFilterLayers} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			d, k := newForesight(t, s)
			p := s.picture("a", "b", "c", "d")
			p.fetch(0, 1, 2, 3)
			p.name(labels)
			must(t, p.apply(d, 1))
			p.expect(k, 2, 3)
			until(t, "the image is no longer followed", k.idle)
			if k.failed != 0 {
				t.Error("it was given up")
			}
			for _, l := range k.layers {
				i := slices.Index(p.diffIDs, l.DiffID)
				if l.Below != identity.ChainID(p.diffIDs[:i]) || l.Namespace != testNamespace || l.ChainID != identity.ChainID(p.diffIDs[:i+1]) || l.Blob.Size != p.layers[i].Size {
					t.Errorf("%+v", l)
				}
			}
			if got := k.followed; len(got) != 1 || len(got[0]) != 4 {
				t.Errorf("followed %v", got)
			}
			must(t, p.apply(d, 3)) // the last one: nothing is above it
			p.expect(k, 2, 3)
		})
	}
}

// A layer that is being fetched is waited for, and does not keep those above it waiting.
func TestLayersThatAreFetchedLater(t *testing.T) {
	s := newStore(t)
	d, k := newForesight(t, s)
	p := s.picture("a", "b", "c", "d", "e")
	p.fetch(0, 4)
	p.name(nil)
	must(t, p.apply(d, 0))
	p.expect(k, 4)
	p.fetch(2)
	p.expect(k, 2, 4)
	p.fetch(1)
	must(t, p.apply(d, 1)) // whoever comes first
	p.fetch(3)
	until(t, "the image is no longer followed", k.idle)
	if got := k.blobs(); !slices.Contains(got, p.layers[3].Digest) {
		t.Errorf("extracted %v", got)
	}
}

// Of two images with the layer it is the one that was pulled last.
func TestImageThatWasPulledLast(t *testing.T) {
	s := newStore(t)
	d, k := newForesight(t, s)
	first, second := s.picture("base", "one"), s.picture("base", "two")
	first.fetch(0, 1)
	second.fetch(0, 1)
	first.name(nil)
	second.name(nil)
	first.name(nil) // again
	must(t, first.apply(d, 0))
	first.expect(k, 1)
}

// What containerd asks for itself is left to it.
func TestLayersThatAreAskedForMeanwhile(t *testing.T) {
	s := newStore(t)
	d, k := newForesight(t, s)
	k.wait = make(chan struct{})
	p := s.picture("a", "b", "c", "d")
	p.fetch(0, 1, 2, 3)
	p.name(nil)
	must(t, p.apply(d, 0))
	until(t, "the image is followed", func() bool { k.mu.Lock(); defer k.mu.Unlock(); return len(k.followed) > 0 })
	must(t, p.apply(d, 1))
	must(t, p.apply(d, 2))
	other := namespaces.WithNamespace(t.Context(), "other") // is no matter of this image
	must(t, content.WriteBlob(other, s.db.ContentStore(), "x", bytes.NewReader(p.blobs[3]), p.layers[3]))
	_, err := d.Apply(other, p.layers[3], bindMount(t.TempDir(), "rw"))
	must(t, err)
	close(k.wait)
	p.expect(k, 3)
	until(t, "the image is no longer followed", k.idle)
}

// Whatever is wrong with an image, or with who applies a layer, nothing is extracted ahead,
// and nobody hears of it.
func TestNoImage(t *testing.T) {
	for name, test := range map[string]func(*store, picture) picture{
		"none":      func(_ *store, p picture) picture { return p },
		"one layer": func(s *store, _ picture) picture { p := s.picture("a"); p.name(nil); return p },
		"layers and diffIDs": func(_ *store, p picture) picture {
			p.diffIDs = p.diffIDs[:1]
			p.name(nil)
			return p
		},
		"no digest": func(_ *store, p picture) picture {
			p.diffIDs[1] = "sha256:../x"
			p.name(nil)
			return p
		},
		"a config that is larger than it says": func(s *store, p picture) picture {
			text, err := json.Marshal(ocispec.Image{RootFS: ocispec.RootFS{DiffIDs: p.diffIDs}})
			must(s.t, err)
			config := s.put(ocispec.MediaTypeImageConfig, append(text, bytes.Repeat([]byte(" "), 9<<20)...))
			config.Size = int64(len(text))
			p.nameWith(config, nil)
			return p
		},
		"no JSON": func(s *store, p picture) picture {
			info := content.Info{Digest: s.put("x", []byte("{")).Digest, Labels: map[string]string{
				"containerd.io/gc.ref.content.config": "x", "containerd.io/gc.ref.content.l.0": p.layers[0].Digest.String(),
			}}
			_, err := s.db.ContentStore().Update(inNamespace(s.t), info, "labels")
			must(s.t, err)
			return p
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			d, k := newForesight(t, s)
			p := test(s, s.picture("a", "b"))
			p.fetch(0)
			must(t, p.apply(d, 0))
			// One image is looked for at a time: when this one was found the other was not.
			good := s.picture("good", "next")
			good.fetch(0, 1)
			good.name(nil)
			until(t, "another image is found", func() bool {
				must(t, good.apply(d, 0))
				return len(k.blobs()) > 0
			})
			must(t, d.Close())
			for _, ids := range k.followed {
				if ids[0] != good.diffIDs[0] {
					t.Errorf("followed %v", ids)
				}
			}
			for _, blob := range k.blobs() {
				if blob != good.layers[1].Digest {
					t.Errorf("extracted %v", blob)
				}
			}
		})
	}
}

// Another namespace's image, and snapshots of others, are none of ours.
func TestImageOfAnotherNamespace(t *testing.T) {
	s := newStore(t)
	d, k := newForesight(t, s)
	p := s.picture("a", "b")
	p.fetch(0, 1)
	p.name(nil)
	other := namespaces.WithNamespace(t.Context(), "other")
	must(t, content.WriteBlob(other, s.db.ContentStore(), "x", bytes.NewReader(p.blobs[0]), p.layers[0]))
	_, err := d.Apply(other, p.layers[0], bindMount(t.TempDir(), "rw"))
	must(t, err)
	dirs := mkdirs(t, t.TempDir(), "upper", "work", "lower")
	_, err = d.Apply(inNamespace(t), p.layers[0], overlayMount("upperdir="+dirs[0], "workdir="+dirs[1], "lowerdir="+dirs[2]))
	must(t, err)
	must(t, d.Close())
	if len(k.blobs()) != 0 || len(k.followed) != 0 {
		t.Errorf("extracted %v, followed %v", k.blobs(), k.followed)
	}
}

// An image is left alone when one of its layers fails, here or where it was asked for, or
// when containerd gives up.
func TestImageThatFails(t *testing.T) {
	broken := func(p picture, i int) {
		blob := append(slices.Clone(p.blobs[i]), "rest"...)
		p.blobs[i] = blob
		p.layers[i].Digest, p.layers[i].Size = digest.FromBytes(blob), int64(len(blob))
	}
	for name, test := range map[string]struct {
		fetched []int
		prepare func(picture)
		then    func(*diff.Differ, *keeper, picture)
	}{
		"ahead": {fetched: []int{0, 1}, prepare: func(p picture) { broken(p, 1) }, then: func(*diff.Differ, *keeper, picture) {}},
		"asked": {fetched: []int{0, 2}, prepare: func(p picture) { broken(p, 2) }, then: func(d *diff.Differ, _ *keeper, p picture) {
			if err := p.apply(d, 2); err == nil {
				t.Error("a layer with a rest was applied")
			}
		}},
		"given up":   {fetched: []int{0}, prepare: func(picture) {}, then: func(_ *diff.Differ, k *keeper, _ picture) { k.giveUp() }},
		"encrypted":  {fetched: []int{0, 1}, prepare: func(p picture) { p.layers[1].MediaType += "+encrypted" }, then: func(*diff.Differ, *keeper, picture) {}},
		"it is over": {fetched: []int{0}, prepare: func(picture) {}, then: func(d *diff.Differ, _ *keeper, _ picture) { must(t, d.Close()) }},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			d, k := newForesight(t, s)
			p := s.picture("a", "b", "c", "d")
			test.prepare(p)
			p.fetch(test.fetched...)
			p.name(nil)
			must(t, p.apply(d, 0))
			until(t, "the image is followed", func() bool { k.mu.Lock(); defer k.mu.Unlock(); return len(k.followed) > 0 })
			test.then(d, k, p)
			until(t, "the image is no longer followed", k.idle)
			if got := k.blobs(); len(got) != 0 || k.failed != k.ended {
				t.Errorf("extracted %v, gave up %d of %d images", got, k.failed, k.ended)
			}
		})
	}
}
