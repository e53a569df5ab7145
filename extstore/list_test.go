// SPDX-License-Identifier: Apache-2.0

package extstore

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/strata-snapshotter/strata/internal/layertest"
)

func TestListAndCheck(t *testing.T) {
	e := export(t, rich())
	broken := digest.FromString("broken")
	must(t, os.MkdirAll(filepath.Join(e.store, layerPath(broken), fsName), 0o755))
	must(t, os.WriteFile(filepath.Join(e.store, layersDir, "sha256", "stray"), nil, 0o644))
	must(t, os.WriteFile(filepath.Join(e.store, layersDir, "stray"), nil, 0o644))
	list, err := List(e.store)
	must(t, err)
	if len(list) != 2 {
		t.Fatalf("%+v", list)
	}
	for _, l := range list {
		switch {
		case l.DiffID == broken && !errdefs.IsDataLoss(l.Err):
			t.Errorf("a layer without layer.json: %v", l.Err)
		case l.DiffID == e.layer.DiffID && (l.Err != nil || l.Layer.Inodes != e.layer.Inodes || l.Layer.Dir != nil):
			t.Errorf("%+v", l)
		}
	}
	for _, verify := range []Verify{VerifyNone, VerifyMetadata, VerifyFull} {
		must(t, Check(ctx, e.store, e.layer.DiffID, verify))
		if err := Check(ctx, e.store, broken, verify); !errdefs.IsDataLoss(err) {
			t.Errorf("%s: a layer without layer.json: %v", verify, err)
		}
	}
	must(t, e.keepingTimes(func() error {
		path := filepath.Join(e.fs, "etc/passwd")
		st, err := os.Stat(path)
		return errors.Join(err, os.WriteFile(path, []byte("root:x:0:1"), 0o644), os.Chtimes(path, st.ModTime(), st.ModTime()))
	}))
	must(t, Check(ctx, e.store, e.layer.DiffID, VerifyMetadata))
	if err := Check(ctx, e.store, e.layer.DiffID, VerifyFull); !errdefs.IsDataLoss(err) {
		t.Errorf("a changed file: %v", err)
	}
}

func TestListAndCheckRefuse(t *testing.T) {
	e := export(t, layertest.Layer{layertest.File("f", "x")})
	none, other := filepath.Join(t.TempDir(), "none"), t.TempDir()
	for path, is := range map[string]func(error) bool{none: errdefs.IsNotFound, other: errdefs.IsFailedPrecondition} {
		if _, err := List(path); !is(err) {
			t.Errorf("List %s: %v", path, err)
		}
		if err := Check(ctx, path, e.layer.DiffID, VerifyFull); !is(err) {
			t.Errorf("Check %s: %v", path, err)
		}
	}
	if err := Check(ctx, e.store, digest.FromString("no layer"), VerifyFull); !errdefs.IsNotFound(err) {
		t.Errorf("a layer that is not there: %v", err)
	}
	if err := Check(ctx, e.store, "x", VerifyFull); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no digest: %v", err)
	}
}

// A layer that goes while it is copied is not in the store afterwards.
func TestExportOfALayerThatGoes(t *testing.T) {
	l := mustExtract(t, rich())
	store := filepath.Join(t.TempDir(), "store")
	l.StillThere = func() error { return errors.Join(errors.New("it went"), errdefs.ErrUnavailable) }
	if err := Export(ctx, store, l); !errdefs.IsUnavailable(err) {
		t.Errorf("got %v", err)
	}
	list, err := List(store)
	must(t, err)
	if len(list) != 0 {
		t.Errorf("%+v", list)
	}
	l.StillThere = func() error { return nil }
	must(t, Export(ctx, store, l))
	must(t, Check(ctx, store, l.DiffID, VerifyFull))
}
