// SPDX-License-Identifier: Apache-2.0

package fsck_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/internal/inflate"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/metadata"
	"github.com/strata-snapshotter/strata/snapshotter"
)

// pulled is a root with two images of the same layers, and what containerd keeps of them.
type pulled struct {
	t             *testing.T
	root, content string
	blobs         [][]byte
}

func newPulled(t *testing.T) *pulled {
	t.Helper()
	testutil.RequireRoot(t)
	dir := testutil.Tmpfs(t)
	p := &pulled{t: t, root: filepath.Join(dir, "root"), content: filepath.Join(dir, "content"), blobs: blobs(t)}
	testutil.CheckNoMounts(t, p.root)
	p.blobs[2] = gzipped(t, p.blobs[2])
	if err := os.MkdirAll(filepath.Join(p.content, "blobs/sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := p.open()
	for _, image := range []string{"one", "two"} {
		parent := ""
		for i, blob := range p.blobs {
			p.must(os.WriteFile(p.blob(i), blob, 0o644))
			name := fmt.Sprint(image, "-", i)
			p.unpack(s, blob, name, parent)
			parent = name
		}
		_, err := s.Prepare(ctx, image+"-container", parent)
		p.must(err)
	}
	p.must(s.Close())
	return p
}

func (p *pulled) must(errs ...error) {
	p.t.Helper()
	if err := errors.Join(errs...); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pulled) open() *snapshotter.Snapshotter {
	p.t.Helper()
	s, err := snapshotter.New(ctx, snapshotter.Config{Root: p.root, Durability: snapshotter.DurabilityNone})
	p.must(err)
	return s
}

func (p *pulled) blob(i int) string {
	return filepath.Join(p.content, "blobs/sha256", digest.FromBytes(p.blobs[i]).Encoded())
}

func (p *pulled) options() fsck.Options {
	return fsck.Options{Root: p.root, Content: p.content, Data: true}
}

func gzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(data)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (p *pulled) unpack(s *snapshotter.Snapshotter, blob []byte, name, parent string) {
	p.t.Helper()
	key := "extract-" + name
	mounts, err := s.Prepare(ctx, key, parent, snapshots.WithLabels(map[string]string{snapshots.LabelSnapshotRef: name}))
	p.must(err)
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
	stage, err := s.Stage(ctx, mounts, desc)
	p.must(err)
	_, adopted, err := stage.Adopt(ctx)
	p.must(err)
	if !adopted {
		src, err := inflate.Open(bytes.NewReader(blob), inflate.Detect(blob), inflate.Options{})
		p.must(err)
		result, err := archive.Apply(ctx, src, stage.Dir(), stage.Options())
		p.must(err, src.Close(), stage.Seal(ctx, desc, result))
	}
	p.must(stage.Release(), s.Commit(ctx, name, key))
}

// layerOf is the number of the layer of blob i, of which there is one.
func (p *pulled) layerOf(i int) uint64 {
	p.t.Helper()
	c, err := metadata.Inspect(filepath.Join(p.root, "metadata.db"))
	p.must(err)
	for _, sn := range c.Snapshots {
		if sn.Name == fmt.Sprint("one-", i) {
			return sn.Layer
		}
	}
	p.t.Fatalf("there is no layer of blob %d", i)
	return 0
}

func (p *pulled) at(i int, rest string) string {
	return filepath.Join(p.root, "layers", strconv.FormatUint(p.layerOf(i), 10), rest)
}

// views is what containers of both images would see.
func (p *pulled) views() map[string]string {
	p.t.Helper()
	s := p.open()
	all := map[string]string{}
	for _, image := range []string{"one", "two"} {
		mounts, err := s.Mounts(ctx, image+"-container")
		p.must(err)
		p.must(mount.WithTempMount(ctx, mounts, func(root string) error {
			for path, text := range dump(p.t, root) {
				if strings.HasSuffix(path, "/a/c") { // of no layer, and as old as its directory
					continue
				}
				all[image+strings.TrimPrefix(path, root)] = text
			}
			return nil
		}))
	}
	p.must(s.Cleanup(ctx), s.Close())
	return all
}

// A layer that is damaged in any way is as it was after a repair, for all images; without
// its blob the images are named, and nothing is touched.
func TestDamagedLayersAreExtractedAgain(t *testing.T) {
	flip := func(path string) error {
		b, err := os.ReadFile(path)
		if err != nil || len(b) == 0 {
			return os.WriteFile(path, []byte("x"), 0o755)
		}
		b[len(b)/2] ^= 1
		return os.WriteFile(path, b, 0o600)
	}
	for name, test := range map[string]struct {
		layer int
		do    func(p *pulled) error
	}{
		"a file is gone":           {0, func(p *pulled) error { return os.Remove(p.at(0, "fs/a/b")) }},
		"a file has another mode":  {0, func(p *pulled) error { return os.Chmod(p.at(0, "fs/a/b"), 0o666) }},
		"a file has content":       {2, func(p *pulled) error { return flip(p.at(2, "fs/x")) }},
		"a file too many":          {2, func(p *pulled) error { return flip(p.at(2, "fs/y")) }},
		"of a layer with needs":    {1, func(p *pulled) error { return os.Remove(p.at(1, "fs/a/c/d")) }},
		"no fs":                    {0, func(p *pulled) error { return os.RemoveAll(p.at(0, "fs")) }},
		"no directory":             {2, func(p *pulled) error { return os.RemoveAll(p.at(2, "")) }},
		"no layer.json":            {1, func(p *pulled) error { return os.Remove(p.at(1, "layer.json")) }},
		"layer.json is unreadable": {0, func(p *pulled) error { return os.Truncate(p.at(0, "layer.json"), 7) }},
		"the index is damaged":     {0, func(p *pulled) error { return flip(p.at(0, "index")) }},
		"many things":              {0, func(p *pulled) error { return errors.Join(flip(p.at(0, "fs/a/b")), flip(p.at(0, "index"))) }},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPulled(t)
			want, old := p.views(), p.layerOf(test.layer)
			p.must(test.do(p))
			p.withoutBlob(test.layer, name)
			r, err := fsck.Repair(ctx, p.options(), yes)
			p.must(err)
			wantCodes(t, "repair", r, nil)
			if r.ExitCode() != fsck.ExitRepaired || p.layerOf(test.layer) == old {
				t.Errorf("exit code %d, layer %d", r.ExitCode(), p.layerOf(test.layer))
			}
			wantCodes(t, "afterwards", checkWith(t, p.options()), nil)
			sameDump(t, want, p.views())
			wantCodes(t, "after a start", checkWith(t, p.options()), nil)
			p.goesOn()
		})
	}
}

// withoutBlob repairs while the blob of a layer is elsewhere.
func (p *pulled) withoutBlob(i int, name string) {
	p.t.Helper()
	p.must(os.Rename(p.blob(i), p.blob(i)+"-away"))
	before := dump(p.t, filepath.Join(p.root, "layers"))
	opts := p.options()
	r, err := fsck.Check(ctx, opts)
	p.must(err)
	if r.Worst() != fsck.Damage {
		p.t.Errorf("%s is no damage: %+v", name, r)
	}
	for _, f := range r.Findings {
		if f.Severity == fsck.Damage && len(f.Plan) == 0 && (len(f.Affected) < 4 || !strings.Contains(f.Message, "no blob of it is in")) {
			p.t.Errorf("%+v", f)
		}
	}
	if !strings.Contains(name, "layer.json") { // of that there is another way
		_, err = fsck.Repair(ctx, opts, yes)
		p.must(err)
		sameDump(p.t, before, dump(p.t, filepath.Join(p.root, "layers")))
	}
	p.must(os.Rename(p.blob(i)+"-away", p.blob(i)))
}

// goesOn removes everything.
func (p *pulled) goesOn() {
	p.t.Helper()
	s := p.open()
	for _, image := range []string{"one", "two"} {
		for _, name := range []string{"-container", "-2", "-1", "-0"} {
			p.must(s.Remove(ctx, image+name))
		}
	}
	p.must(s.Cleanup(ctx), s.Close())
	for path := range dump(p.t, filepath.Join(p.root, "layers")) {
		if path != filepath.Join(p.root, "layers") {
			p.t.Errorf("%s is left", path)
		}
	}
}

// A container that runs keeps the directory it was started on, through the repair and a
// start of the daemon, until it ends.
func TestRunningContainersKeepTheirLayers(t *testing.T) {
	p := newPulled(t)
	s := p.open()
	mounts, err := s.Mounts(ctx, "one-container")
	p.must(err, s.Close())
	target := t.TempDir()
	p.must(mount.All(mounts, target))
	mounted := true
	unmount := func() {
		if mounted {
			p.must(mount.UnmountAll(target, 0))
		}
		mounted = false
	}
	defer unmount()
	old := p.at(0, "")
	p.must(os.WriteFile(p.at(0, "fs/a/b"), []byte("damaged"), 0o755))
	r, err := fsck.Repair(ctx, p.options(), yes)
	p.must(err)
	wantCodes(t, "repair", r, []string{"layer-orphan", "mount-unknown"})
	s = p.open()
	p.must(s.Cleanup(ctx))
	if b, err := os.ReadFile(filepath.Join(target, "a/b")); err != nil || string(b) != "damaged" {
		t.Errorf("what runs sees %q, %v", b, err)
	}
	p.must(s.Close())
	if b, err := os.ReadFile(p.at(0, "fs/a/b")); err != nil || len(b) != 0 {
		t.Errorf("the new one is %q, %v", b, err)
	}
	unmount()
	s = p.open()
	p.must(s.Cleanup(ctx), s.Close())
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("the old one is left: %v", err)
	}
	wantCodes(t, "in the end", checkWith(t, p.options()), nil)
}

// What is extracted has to be the layer: another blob, or one that is damaged, changes
// nothing, and says why.
func TestWrongBlobIsNotTaken(t *testing.T) {
	for name, data := range map[string]func(p *pulled) []byte{
		"another layer": func(p *pulled) []byte { return p.blobs[1] },
		"cut off":       func(p *pulled) []byte { return p.blobs[0][:100] },
		"no tar":        func(*pulled) []byte { return slices.Repeat([]byte("x"), 2000) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPulled(t)
			p.must(os.Remove(p.at(0, "fs/a/b")), os.WriteFile(p.blob(0), data(p), 0o644))
			before := dump(t, filepath.Join(p.root, "layers"))
			r, err := fsck.Repair(ctx, p.options(), yes)
			p.must(err)
			wantCodes(t, "repair", r, []string{"data-missing", "data-mtime"})
			for _, f := range r.Findings {
				if !strings.Contains(f.Message, "it can't be extracted again: blob") || len(f.Affected) != 8 || f.Plan != nil {
					t.Errorf("%+v", f)
				}
			}
			sameDump(t, before, dump(t, filepath.Join(p.root, "layers")))
			if items, err := os.ReadDir(filepath.Join(p.root, "staging")); err != nil || len(items) > 0 {
				t.Errorf("staging holds %v, %v", items, err)
			}
		})
	}
}

// A plan changes nothing, and a repair that is told to end leaves what the next does.
func TestCancelledExtraction(t *testing.T) {
	p := newPulled(t)
	p.must(os.Remove(p.at(0, "fs/a/b")))
	before := dump(t, p.root)
	_, err := fsck.Repair(ctx, p.options(), no)
	p.must(err)
	sameDump(t, before, dump(t, p.root))
	cancelled, cancel := context.WithCancel(ctx)
	_, err = fsck.Repair(cancelled, p.options(), func(*fsck.Report) bool { cancel(); return true })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	r, err := fsck.Repair(ctx, p.options(), yes)
	p.must(err)
	wantCodes(t, "repair", r, nil)
}
