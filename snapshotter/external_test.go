// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/strata-snapshotter/strata/extstore"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/layerstore"
)

// export copies the layer of a snapshot into the additional store dst.
func export(t *testing.T, s *Snapshotter, name, dst string) {
	t.Helper()
	n := layerOf(t, s, name)
	m, err := s.store.ReadManifest(n)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := s.store.OpenLayer(n)
	if err != nil {
		t.Fatal(err)
	}
	l := extstore.Layer{
		DiffID: m.DiffID, Size: m.Size, Dir: dir, Bytes: m.Bytes, Inodes: m.Inodes, Empty: m.Empty, OpaqueRoot: m.OpaqueRoot,
		Xattrs: s.xattrs, Blobs: []digest.Digest{m.DiffID}, // not compressed
	}
	if len(m.Needs) > 0 {
		if err := json.Unmarshal(m.Needs, &l.Needs); err != nil {
			t.Fatal(err)
		}
	}
	if err := extstore.Export(ctx, dst, l); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// exported is an additional store with the layers of an image.
func exported(t *testing.T, image ...int) string {
	t.Helper()
	testutil.RequireRoot(t)
	dst := filepath.Join(t.TempDir(), "store")
	s, l := openSharing(t, Config{})
	for _, name := range l.mustPull(t, s, late, image...) {
		export(t, s, name, dst)
	}
	return dst
}

// openWith opens a root beside additional stores. Its mounts go with its snapshots.
func openWith(t *testing.T, cfg Config) (*Snapshotter, library) {
	t.Helper()
	s, l := openSharing(t, cfg)
	t.Cleanup(func() {
		if _, err := s.Stat(ctx, "x"); !errdefs.IsUnavailable(err) { // not closed by the test
			emptyOut(t, s)
		}
	})
	return s, l
}

func isExternal(t *testing.T, s *Snapshotter, name string) bool {
	t.Helper()
	m, err := s.store.ReadManifest(layerOf(t, s, name))
	if err != nil {
		t.Fatal(err)
	}
	return m.Format == layerstore.FormatExternal
}

// Layers of an additional store are neither extracted nor charged, and are shared as any
// other. Those that ask something of their parents get the patch here.
func TestImageOfAnAdditionalStore(t *testing.T) {
	dst := exported(t, 0, 7, 2, 4, 6)
	for _, how := range []way{diffIDs, blobs, staged} {
		t.Run(fmt.Sprint(how), func(t *testing.T) {
			s, l := openWith(t, Config{AdditionalStores: []string{"/nonexistent/store", dst}})
			clear(l.layers) // nothing that could be extracted
			made := l.mustPull(t, s, how, 0, 7)
			made = append(made, l.mustPull(t, s, diffIDs, 0, 7, 2)...)
			made = append(made, l.mustPull(t, s, how, 7, 4, 6)...)
			for _, name := range made {
				if !isExternal(t, s, name) {
					t.Errorf("%s has a layer of its own", name)
				}
			}
			checkStore(t, s)
			if n := layerDirs(t, s); n != 6 { // one of them is the patch
				t.Errorf("%d layers", n)
			}
			if u, err := s.Usage(ctx, made[0]); err != nil || u != (snapshots.Usage{}) {
				t.Errorf("charged %+v, %v", u, err)
			}
			s = reopen(t, s)
			checkStore(t, s)
			emptyOut(t, s)
		})
	}
}

// A namespace has what additional stores have, whatever it pulled.
func TestAdditionalStoresAreForEveryNamespace(t *testing.T) {
	dst := exported(t, 7)
	s, l := openWith(t, Config{AdditionalStores: []string{dst}, Sharing: SharingNamespace})
	opt := snapshots.WithLabels(l.labels([]int{7}, diffIDs))
	for _, ns := range []string{"one", "two"} {
		if _, err := s.Prepare(ctx, ns+"/1/extract-x", "", opt); !errdefs.IsAlreadyExists(err) {
			t.Errorf("%s: %v", ns, err)
		}
	}
	if n := layerDirs(t, s); n != 1 {
		t.Errorf("%d layers", n)
	}
}

// A store that went away is named where its layers are used, and a new pull extracts
// them. When it is back all is as before.
func TestAdditionalStoreThatVanishes(t *testing.T) {
	for how := range ways {
		t.Run(fmt.Sprint(how), func(t *testing.T) {
			dst := exported(t, 0, 7)
			s, l := openWith(t, Config{AdditionalStores: []string{dst}})
			made := l.mustPull(t, s, diffIDs, 0, 7)
			if _, err := s.View(ctx, "view", made[1]); err != nil {
				t.Fatal(err)
			}
			unmountLayers(t, s)
			if err := os.Rename(dst, dst+".away"); err != nil {
				t.Fatal(err)
			}
			s = reopenWithout(t, s, l)
			if _, err := s.Mounts(ctx, "view"); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), dst) {
				t.Errorf("got %v", err)
			}
			again := l.mustPull(t, s, how, 1, 7)
			if isExternal(t, s, again[1]) {
				t.Error("the new image stands on a layer that is not there")
			}
			if err := os.Rename(dst+".away", dst); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Mounts(ctx, "view"); err != nil {
				t.Errorf("the store is back: %v", err)
			}
			mustRemove(t, s, "view")
			for image, name := range map[[2]int]string{{0, 7}: made[1], {1, 7}: again[1]} {
				if err := l.check(s, name, image[:]); err != nil {
					t.Error(err)
				}
			}
			emptyOut(t, s)
		})
	}
}

// unmountLayers does what a reboot does to the layers of additional stores.
func unmountLayers(t *testing.T, s *Snapshotter) {
	t.Helper()
	for _, m := range testutil.MountsUnder(t, filepath.Join(s.cfg.Root, "layers")) {
		if !strings.HasPrefix(m, s.cfg.Root) {
			continue
		}
		if err := unmount(m); err != nil {
			t.Fatal(err)
		}
	}
}

// reopenWithout restarts where the directories of some layers are missing.
func reopenWithout(t *testing.T, s *Snapshotter, l library) *Snapshotter {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := New(ctx, s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	})
	again.UseUnpacker(l)
	return again
}
