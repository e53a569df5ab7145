// SPDX-License-Identifier: Apache-2.0

package service

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/snapshotter"
)

// scrubbed is a root with extracted layers.
type scrubbed struct {
	t    *testing.T
	root string
	sn   *snapshotter.Snapshotter
	log  buffer
}

// buffer is what was logged.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// newScrubbed extracts layers that are damaged afterwards, which is all that fsck finds
// at the end.
func newScrubbed(t *testing.T, want ...fsck.Code) *scrubbed {
	t.Helper()
	testutil.RequireRoot(t)
	s := &scrubbed{t: t, root: filepath.Join(testutil.Tmpfs(t), "root")}
	testutil.CheckNoMounts(t, s.root)
	s.open()
	t.Cleanup(func() {
		must(t, s.sn.Close())
		r, err := fsck.Check(context.Background(), fsck.Options{Root: s.root, Usage: true, Data: true})
		must(t, err)
		var found []fsck.Code
		for _, f := range r.Findings {
			found = append(found, f.Code)
		}
		if !slices.Equal(found, want) {
			t.Errorf("fsck found %q, want %q", found, want)
		}
	})
	return s
}

func (s *scrubbed) open() {
	cfg := config.Default()
	sn, err := OpenSnapshotter(s.t.Context(), Opening{Root: s.root, Options: cfg.Snapshotter, Limits: cfg.Limits})
	must(s.t, err)
	s.sn = sn
}

// unpack extracts a layer that nobody else has, and returns its number.
func (s *scrubbed) unpack(name string, entries ...layertest.Entry) uint64 {
	s.t.Helper()
	ctx := s.t.Context()
	blob, err := layertest.Layer(append(entries, layertest.File("name", name))).Tar()
	must(s.t, err)
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
	label := snapshots.WithLabels(map[string]string{snapshots.LabelSnapshotRef: name})
	mounts, err := s.sn.Prepare(ctx, "extract-"+name, "", label)
	must(s.t, err)
	stage, err := s.sn.Stage(ctx, mounts, desc)
	must(s.t, err)
	result, err := archive.Apply(ctx, archive.FromReader(bytes.NewReader(blob)), stage.Dir(), stage.Options())
	must(s.t, err)
	must(s.t, stage.Seal(ctx, desc, result))
	must(s.t, stage.Release())
	must(s.t, s.sn.Commit(ctx, name, "extract-"+name))
	layers, err := s.sn.Layers()
	must(s.t, err)
	return layers[len(layers)-1]
}

func (s *scrubbed) file(n uint64, name string) string {
	return filepath.Join(s.root, "layers", fmt.Sprint(n), "fs", name)
}

// damage changes the content of a file, and nothing else of it.
func (s *scrubbed) damage(path string) {
	s.t.Helper()
	st, err := os.Stat(path)
	must(s.t, err)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(s.t, err)
	_, err = f.WriteAt([]byte{'!'}, 0)
	must(s.t, err)
	must(s.t, f.Close())
	must(s.t, os.Chtimes(path, st.ModTime(), st.ModTime()))
}

func (s *scrubbed) scrub(rate int64) *Scrub {
	scrub := NewScrub(s.sn, s.root, config.Scrub{Interval: "1h", Rate: rate})
	scrub.delay = 0
	return scrub
}

// run runs scrub until done says so.
func (s *scrubbed) run(scrub *Scrub, done func(ScrubStats) bool) {
	s.t.Helper()
	logger := logrus.New()
	logger.SetOutput(&s.log)
	stop := scrub.start(log.WithLogger(s.t.Context(), logrus.NewEntry(logger)), time.Minute)
	defer stop()
	for end := time.Now().Add(time.Minute); !done(scrub.Stats()); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("nothing more in a minute: %+v", scrub.Stats())
		}
	}
}

func rounds(n int64) func(ScrubStats) bool {
	return func(st ScrubStats) bool { return st.Rounds >= n }
}

func TestScrubFindsDamageOnce(t *testing.T) {
	s := newScrubbed(t, fsck.CodeDataContent, fsck.CodeIndexAbsent)
	s.unpack("sound", layertest.Dir("d"))
	bad := s.unpack("bad", layertest.File("d/file", "content"))
	_, err := s.sn.Prepare(t.Context(), "container", "")
	must(t, err)
	must(t, s.sn.Commit(t.Context(), "committed", "container"))
	scrub := s.scrub(0)
	s.run(scrub, rounds(1))
	if got := scrub.Stats(); got.Layers != 2 || got.Unindexed != 1 || got.Damaged != 0 || got.Failed != 0 || got.Bytes == 0 || s.log.String() != "" {
		t.Errorf("a sound root: %+v\n%s", got, s.log.String())
	}
	s.damage(s.file(bad, "d/file"))
	scrub.every = time.Millisecond
	s.run(scrub, rounds(4))
	text := s.log.String()
	if strings.Count(text, "a layer is damaged") != 1 || scrub.Stats().Damaged != 1 {
		t.Errorf("%+v\n%s", scrub.Stats(), text)
	}
	for _, part := range []string{"level=error", "layer=" + fmt.Sprint(bad), "diffID=\"sha256:", "/d/file", "--root " + s.root + " fsck --data"} {
		if !strings.Contains(text, part) {
			t.Errorf("the log does not say %s:\n%s", part, text)
		}
	}
}

func TestScrubFindsADamagedIndex(t *testing.T) {
	s := newScrubbed(t, fsck.CodeIndexDamaged)
	n := s.unpack("layer")
	must(t, os.Truncate(filepath.Join(s.root, "layers", fmt.Sprint(n), "index"), 50))
	scrub := s.scrub(0)
	s.run(scrub, rounds(1))
	if scrub.Stats().Damaged != 1 || !strings.Contains(s.log.String(), "index") {
		t.Errorf("%+v\n%s", scrub.Stats(), s.log.String())
	}
}

// A restart goes on with the layer after the last, and a round that ended is not
// repeated before its time.
func TestScrubGoesOnAfterARestart(t *testing.T) {
	s := newScrubbed(t)
	first := s.unpack("first")
	s.unpack("second")
	must(t, s.sn.WriteScrub(scrubState{Started: time.Now(), Layer: first}))
	must(t, s.sn.Close())
	s.open()
	scrub := s.scrub(0)
	s.run(scrub, rounds(1))
	if scrub.Stats().Layers != 1 {
		t.Errorf("%+v", scrub.Stats())
	}
	var state scrubState
	must(t, s.sn.ReadScrub(&state))
	if wait := state.wait(time.Now(), time.Hour); wait < 50*time.Minute || wait > time.Hour || state.Layer != 0 {
		t.Errorf("%+v, %v", state, wait)
	}
	for name, early := range map[string]scrubState{"never": {}, "in a round": {Started: time.Now(), Layer: 5}, "long ago": {Started: time.Unix(5, 0)}} {
		if wait := early.wait(time.Now(), time.Hour); wait > 0 {
			t.Errorf("%s: %v", name, wait)
		}
	}
	if wait := (scrubState{Started: time.Now().Add(1000 * time.Hour)}).wait(time.Now(), time.Hour); wait != time.Hour {
		t.Errorf("a clock that was wrong: %v", wait)
	}
}

func TestScrubStartsAnewIfItsFileMakesNoSense(t *testing.T) {
	s := newScrubbed(t)
	s.unpack("layer")
	must(t, os.WriteFile(filepath.Join(s.root, "scrub.json"), []byte("{"), 0o600))
	scrub := s.scrub(0)
	s.run(scrub, rounds(1))
	if scrub.Stats().Layers != 1 {
		t.Errorf("%+v", scrub.Stats())
	}
}

// A layer that is removed while it is checked is not damaged.
func TestRemovedLayerIsNotDamaged(t *testing.T) {
	s := newScrubbed(t)
	n := s.unpack("layer", layertest.File("a", "a"), layertest.File("d/b", "b"))
	removed := false
	v, err := s.sn.VerifyLayer(t.Context(), n, func(context.Context, int64) error {
		if !removed {
			removed = true
			must(t, s.sn.Remove(t.Context(), "layer"))
			must(t, s.sn.Cleanup(t.Context()))
		}
		return nil
	})
	if !errdefs.IsNotFound(err) {
		t.Errorf("got %+v, %v", v, err)
	}
	if len(v.Problems) == 0 {
		t.Error("nothing was missing: the test shows nothing")
	}
}

// The end of the process does not wait for a slow check.
func TestScrubEndsInTheMiddle(t *testing.T) {
	s := newScrubbed(t)
	s.unpack("layer", layertest.File("large", strings.Repeat("x", 1<<20)))
	scrub := s.scrub(1)
	s.run(scrub, func(ScrubStats) bool { return true })
	if scrub.Stats().Rounds != 0 {
		t.Errorf("%+v", scrub.Stats())
	}
}

func TestScrubIsOffByDefault(t *testing.T) {
	if scrub := NewScrub(nil, "", config.Default().Scrub); scrub != nil {
		t.Error("it is not")
	}
	var off *Scrub
	off.start(t.Context(), time.Minute)()
	if off.Stats() != (ScrubStats{}) {
		t.Errorf("%+v", off.Stats())
	}
}

// The daemon's service runs it.
func TestServiceScrubs(t *testing.T) {
	testutil.RequireRoot(t)
	cfg := config.Default()
	cfg.Root, cfg.Address = filepath.Join(testutil.Tmpfs(t), "root"), filepath.Join(publicDir(t), "run", "s.sock")
	cfg.Scrub.Interval = "1h"
	s, err := New(t.Context(), cfg)
	must(t, err)
	s.scrub.delay = 0
	ctx, cancel := context.WithCancel(log.WithLogger(context.Background(), quiet()))
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	for end := time.Now().Add(time.Minute); s.ScrubStats().Rounds == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	cancel()
	must(t, <-served)
	must(t, s.Close())
	if s.ScrubStats().Rounds != 1 {
		t.Errorf("%+v", s.ScrubStats())
	}
}

func quiet() *logrus.Entry {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	return logrus.NewEntry(logger)
}
