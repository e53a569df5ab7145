// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/metadata"
)

// extraction is a snapshot that a test extracts layers into, step by step.
type extraction struct {
	key    string
	mounts []mount.Mount
	opt    snapshots.Opt
}

func (l library) extraction(t *testing.T, s *Snapshotter, parent string, image ...int) extraction {
	t.Helper()
	x := extraction{key: fmt.Sprintf("default/%d/extract-x", l.counter.Add(1)), opt: snapshots.WithLabels(l.labels(image, late))}
	x.mounts = prepare(t, s, x.key, parent, x.opt)
	return x
}

// extract does what the differ does with a stage, without looking for the layer first.
func (l layers) extract(st *Stage, desc ocispec.Descriptor) (archive.Result, error) {
	return archive.Apply(ctx, archive.FromReader(bytes.NewReader(l[desc.Digest])), st.Dir(), st.Options())
}

func stage(t *testing.T, s *Snapshotter, m []mount.Mount, desc ocispec.Descriptor) *Stage {
	t.Helper()
	st, err := s.Stage(ctx, m, desc)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func staysOn(t *testing.T, s *Snapshotter, key string) uint64 {
	t.Helper()
	sn, err := s.get(key)
	if err != nil {
		t.Fatal(err)
	}
	return sn.Layer
}

// Apply of a blob that is here already gives the snapshot the layer, and says of it what
// an extraction would have said.
func TestApplyOfAKnownBlobAdopts(t *testing.T) {
	s, l := openSharing(t, Config{})
	first := l.mustPull(t, s, plain1, 0, 7)
	x := l.extraction(t, s, "", 1, 7)
	st := stage(t, s, x.mounts, l.descs[7])
	if !st.MayAdopt() {
		t.Error("MayAdopt says no")
	}
	got, adopted, err := st.Adopt(ctx)
	if err != nil || !adopted {
		t.Fatalf("%v, %v", adopted, err)
	}
	if err := st.Release(); err != nil {
		t.Fatal(err)
	}
	if got.DiffID != l.descs[7].Digest || got.Size != l.descs[7].Size || got.Inodes != 3 {
		t.Errorf("%+v", got)
	}
	if n := staysOn(t, s, x.key); n != layerOf(t, s, first[1]) {
		t.Errorf("on layer %d", n)
	}
	checkStore(t, s)
	if _, err := s.Stage(ctx, x.mounts, l.descs[7]); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("extracting once more: %v", err)
	}
	mustCommit(t, s, "top", x.key, x.opt, snapshots.WithParent(first[0]))
	if err := l.check(s, "top", []int{0, 7}); err != nil {
		t.Error(err)
	}
}

func TestStageThatCannotAdopt(t *testing.T) {
	s, l := openSharing(t, Config{})
	x := l.extraction(t, s, "", 7)
	st := stage(t, s, x.mounts, l.descs[7])
	if st.MayAdopt() {
		t.Error("MayAdopt says yes to a blob that nobody has seen")
	}
	if _, adopted, err := st.Adopt(ctx); adopted || err != nil {
		t.Errorf("%v, %v", adopted, err)
	}
	if err := st.Release(); err != nil {
		t.Fatal(err)
	}
}

// Others who have the same blob wait for the extraction, and get the layer when it has
// ended, which is before its Commit.
func TestOthersWaitForAnExtraction(t *testing.T) {
	s, l := openSharing(t, Config{})
	worker := l.extraction(t, s, "", 1, 7)
	st := stage(t, s, worker.mounts, l.descs[7])
	const others = 3
	var wg sync.WaitGroup
	keys := make([]extraction, others)
	for i := range others {
		keys[i] = l.extraction(t, s, "", 1, 7)
		wg.Go(func() {
			if err := l.apply(t, s, keys[i].mounts, l.descs[7]); err != nil {
				t.Error(err)
			}
		})
	}
	result, err := l.extract(st, l.descs[7])
	if err != nil {
		t.Fatal(err)
	}
	for i := range others { // nobody has a layer while the worker is at it
		if n := staysOn(t, s, keys[i].key); n != 0 {
			t.Errorf("%d has layer %d", i, n)
		}
	}
	if err := errors.Join(st.Seal(ctx, l.descs[7], result), st.Release()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	layer := staysOn(t, s, worker.key)
	for i := range others {
		if n := staysOn(t, s, keys[i].key); n != layer || n == 0 {
			t.Errorf("%d has layer %d, the worker %d", i, n, layer)
		}
	}
	checkStore(t, s)
	mustRemove(t, s, worker.key) // the layer was its directory, and stays
	base := l.mustPull(t, s, plain1, 1)[0]
	for i := range others {
		name := fmt.Sprint("top-", i)
		mustCommit(t, s, name, keys[i].key, keys[i].opt, snapshots.WithParent(base))
		if err := l.check(s, name, []int{1, 7}); err != nil {
			t.Error(err)
		}
	}
}

// A worker that fails, or is cancelled, leaves the work to the next.
func TestExtractionThatFailsIsTakenOver(t *testing.T) {
	s, l := openSharing(t, Config{})
	worker, next, third := l.extraction(t, s, "", 7), l.extraction(t, s, "", 7), l.extraction(t, s, "", 7)
	st := stage(t, s, worker.mounts, l.descs[7])
	canceled, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := s.Stage(canceled, third.mounts, l.descs[7]); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled while it waited: %v", err)
		}
	})
	wg.Go(func() {
		if err := l.apply(t, s, next.mounts, l.descs[7]); err != nil {
			t.Error(err)
		}
	})
	cancel()
	if _, err := l.extract(st, l.descs[7]); err != nil {
		t.Fatal(err)
	}
	if err := st.Release(); err != nil { // without a Seal
		t.Fatal(err)
	}
	wg.Wait()
	if got := list(t, upper(t, s, worker.key)); len(got) != 0 {
		t.Errorf("the worker left %v", got)
	}
	if err := l.apply(t, s, third.mounts, l.descs[7]); err != nil {
		t.Error(err)
	}
	if n := staysOn(t, s, third.key); n == 0 || n != staysOn(t, s, next.key) {
		t.Errorf("the third has layer %d", n)
	}
}

// Two images with the same layers the other way round, pulled at once: each has what the
// other waits for, and neither commits before both are extracted.
func TestLayersInOppositeOrder(t *testing.T) {
	s, l := openSharing(t, Config{})
	var wg sync.WaitGroup
	for i := range 8 {
		image := []int{0, 7}
		if i%2 == 1 {
			image = []int{7, 0}
		}
		wg.Go(func() {
			made, err := l.pull(t, s, image, late)
			if err == nil {
				err = l.check(s, made[1], image)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	checkStore(t, s)
	if n := layerDirs(t, s); n != 2 {
		t.Errorf("%d layers, want 2", n)
	}
}

// A Commit that finds its layer published for somebody else begins again, and a
// promotion that comes after it finds the committed layer.
func TestCommitRacesPromotion(t *testing.T) {
	for range 30 {
		s, l := openSharing(t, Config{Durability: DurabilityNone})
		worker, other := l.extraction(t, s, "", 7), l.extraction(t, s, "", 7)
		if err := l.apply(t, s, worker.mounts, l.descs[7]); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.Commit(ctx, "top", worker.key, worker.opt); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := l.apply(t, s, other.mounts, l.descs[7]); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		checkStore(t, s)
		if a, b := layerOf(t, s, "top"), staysOn(t, s, other.key); a != b {
			t.Errorf("layers %d and %d", a, b)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A layer that was extracted onto its parents meanwhile is not for those who waited.
func TestPromotionOfWhatBecamePrivate(t *testing.T) {
	s, l := openSharing(t, Config{})
	commitLayer(t, s, "base", "")
	x := l.extraction(t, s, "base", 0, 7)
	if err := l.apply(t, s, x.mounts, l.descs[7]); err != nil {
		t.Fatal(err)
	}
	sn, err := s.get(x.key)
	if err != nil {
		t.Fatal(err)
	}
	var sealed seal
	if err := s.store.ReadSeal(sn.Number, &sealed); err != nil {
		t.Fatal(err)
	}
	sealed.Private = true
	if err := s.store.WriteSeal(sn.Number, &sealed); err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{"before", "after"} {
		if _, err := s.promote(ctx, sn.Number); !errdefs.IsNotFound(err) {
			t.Errorf("%s its Commit: %v", step, err)
		}
		if step == "before" {
			mustCommit(t, s, "top", x.key)
		}
	}
}

// Two blobs can unpack to one layer. The one that is extracted but not committed gives
// way to the other.
func TestTwoBlobsOfOneLayer(t *testing.T) {
	s, l := openSharing(t, Config{})
	again := l.descs[7]
	again.Digest = digest.FromString("packed in another way")
	l.layers[again.Digest] = l.layers[l.descs[7].Digest]
	holder, other, third := l.extraction(t, s, "", 7), l.extraction(t, s, "", 7), l.extraction(t, s, "", 7)
	for _, step := range []struct {
		x    extraction
		desc ocispec.Descriptor
	}{{holder, again}, {other, l.descs[7]}} {
		if err := l.apply(t, s, step.x.mounts, step.desc); err != nil {
			t.Fatal(err)
		}
	}
	mustCommit(t, s, "other", other.key, other.opt)
	if err := l.apply(t, s, third.mounts, again); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, s, "third", third.key, third.opt)
	mustCommit(t, s, "holder", holder.key, holder.opt)
	if a, b, c := layerOf(t, s, "other"), layerOf(t, s, "holder"), layerOf(t, s, "third"); a != b || b != c {
		t.Errorf("layers %d, %d, %d", a, b, c)
	}
	err := s.meta.View(func(tx *metadata.Tx) error {
		diffID, err := tx.DiffIDOf(again.Digest)
		if diffID != l.descs[7].Digest {
			t.Errorf("the blob is known as %s", diffID)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	removeAll(t, s, []string{"other", "third", "holder"})
	if n := layerDirs(t, s); n != 0 {
		t.Errorf("%d layers of nobody", n)
	}
}

// A snapshot that holds an extracted layer and goes before its Commit is nobody's source.
func TestHolderThatIsRemoved(t *testing.T) {
	s, l := openSharing(t, Config{})
	holder, next := l.extraction(t, s, "", 7), l.extraction(t, s, "", 7)
	if err := l.apply(t, s, holder.mounts, l.descs[7]); err != nil {
		t.Fatal(err)
	}
	mustRemove(t, s, holder.key)
	if err := l.apply(t, s, next.mounts, l.descs[7]); err != nil {
		t.Fatal(err)
	}
	if n := staysOn(t, s, next.key); n != 0 {
		t.Errorf("on layer %d", n)
	}
	mustCommit(t, s, "next", next.key, next.opt)
}

// A promoted layer lies where its snapshot's directory was. Everything goes on with it
// after a restart.
func TestPromotedSnapshotAfterARestart(t *testing.T) {
	s, l := openSharing(t, Config{})
	worker, other := l.extraction(t, s, "", 1, 7), l.extraction(t, s, "", 1, 7)
	for _, x := range []extraction{worker, other} {
		if err := l.apply(t, s, x.mounts, l.descs[7]); err != nil {
			t.Fatal(err)
		}
	}
	s = reopen(t, s)
	checkStore(t, s)
	base := l.mustPull(t, s, plain1, 1)[0]
	for i, x := range []extraction{worker, other} {
		if m, err := s.Mounts(ctx, x.key); err != nil || !m[0].ReadOnly() {
			t.Errorf("%v, %v", m, err)
		}
		name := fmt.Sprint("top-", i)
		mustCommit(t, s, name, x.key, x.opt, snapshots.WithParent(base))
		if err := l.check(s, name, []int{1, 7}); err != nil {
			t.Error(err)
		}
	}
}
