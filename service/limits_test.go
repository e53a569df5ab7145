// SPDX-License-Identifier: Apache-2.0

package service

import (
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"reflect"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/diff"
	"github.com/strata-snapshotter/strata/fsck/fscktest"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// TestDefaultLimits: config can't import archive, so it has the numbers again.
func TestDefaultLimits(t *testing.T) {
	if got := layerLimits(config.DefaultLimits()); got != archive.DefaultLimits() {
		t.Errorf("config has %+v\narchive %+v", got, archive.DefaultLimits())
	}
}

// TestLayerLimits: every key reaches a field of its own.
func TestLayerLimits(t *testing.T) {
	in, seen := config.Limits{}, map[int64]bool{}
	v := reflect.ValueOf(&in).Elem()
	for i := range v.NumField() {
		v.Field(i).SetInt(int64(i + 1))
	}
	out := reflect.ValueOf(layerLimits(in))
	if out.NumField() != v.NumField() {
		t.Fatalf("archive has %d limits, config %d", out.NumField(), v.NumField())
	}
	for i := range out.NumField() {
		seen[out.Field(i).Int()] = true
	}
	if len(seen) != v.NumField() || seen[0] {
		t.Errorf("%+v became %+v", in, layerLimits(in))
	}
}

// TestSnapshotterTakesLimits asks a snapshot for what it is extracted with.
func TestSnapshotterTakesLimits(t *testing.T) {
	testutil.RequireRoot(t)
	limits := config.DefaultLimits()
	limits.Entries = 77
	root := testutil.Tmpfs(t) + "/root"
	fscktest.AtEnd(t, root)
	sn, err := OpenSnapshotter(t.Context(), Opening{Root: root, Options: config.Default().Snapshotter, Limits: limits})
	must(t, err)
	t.Cleanup(func() { must(t, sn.Close()) })
	stage := stageOf(t, staging{sn})
	if got := stage.Options().Limits; got != layerLimits(limits) {
		t.Errorf("layers are extracted with %+v", got)
	}
	must(t, stage.Release())
}

func stageOf(t *testing.T, s staging) diff.Stage {
	t.Helper()
	mounts, err := s.Prepare(t.Context(), "extract-1", "", snapshots.WithLabels(map[string]string{"containerd.io/snapshot.ref": "x"}))
	must(t, err)
	stage, err := s.Stage(t.Context(), mounts, ocispec.Descriptor{})
	must(t, err)
	return stage
}

func TestWrongLimitsAreRefused(t *testing.T) {
	wrong := config.DefaultLimits()
	wrong.Depth = -1
	if _, err := OpenSnapshotter(t.Context(), Opening{Root: t.TempDir(), Options: config.Default().Snapshotter, Limits: wrong}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("the snapshotter: %v", err)
	}
	if _, err := OpenDiffer(diff.Services{}, nil, "", wrong); !errdefs.IsInvalidArgument(err) {
		t.Errorf("the differ: %v", err)
	}
}
