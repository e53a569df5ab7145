// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"archive/tar"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// tree is what an image shows: its files, and owner and mode of the directory d.
type tree struct {
	files map[string]bool
	d     string
}

// piece is a layer that images are made of.
type piece struct {
	headers []tar.Header
	change  func(*tree)
}

func adds(names ...string) func(*tree) {
	return func(t *tree) {
		for _, name := range names {
			t.files[name] = true
		}
		if t.d == "" {
			t.d = "0:0 755"
		}
	}
}

func names(d string, names ...string) func(*tree) {
	return func(t *tree) {
		adds(names...)(t)
		t.d = d
	}
}

func file(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }

// pieces can be stacked in any order. Those with files in d but no entry for it get a
// patch, which is another one on each kind of layers below.
var pieces = []piece{
	{[]tar.Header{{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o700, Uid: 5, Gid: 6}, file("d/0")}, names("5:6 700", "d/0")},
	{[]tar.Header{{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o750, Uid: 9, Gid: 9}, file("d/1")}, names("9:9 750", "d/1")},
	{[]tar.Header{file("d/2")}, adds("d/2")},
	{[]tar.Header{file("d/3"), file("d/again")}, adds("d/3", "d/again")},
	{nil, func(*tree) {}},
	{[]tar.Header{{Typeflag: tar.TypeDir, Name: "d/"}, file("d/.wh.2")}, func(t *tree) { names("0:0 755")(t); delete(t.files, "d/2") }},
	{
		[]tar.Header{file(".wh..wh..opq"), {Typeflag: tar.TypeDir, Name: "d/", Mode: 0o711, Uid: 3, Gid: 3}},
		func(t *tree) { clear(t.files); t.d = "3:3 711" },
	},
	{[]tar.Header{{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o755}, file("d/7"), {Typeflag: tar.TypeLink, Name: "d/link", Linkname: "d/7"}}, names("0:0 755", "d/7", "d/link")},
}

// way is what a client tells the snapshotter of a layer, and when it knows the parent.
type way int

const (
	plain1  way = iota // as containerd's client before it knew of shared layers
	diffIDs            // the diffID, and the parent from the beginning
	blobs              // the digest of the blob
	late               // the parent at Commit, nothing else said
	staged             // the parent at Commit, and the diffID
	ways
)

// library holds the pieces as blobs, and plays containerd's unpacker.
type library struct {
	layers
	descs   []ocispec.Descriptor
	counter *atomic.Int64
}

func newLibrary(t *testing.T) library {
	t.Helper()
	l := library{layers: layers{}, counter: &atomic.Int64{}}
	for _, p := range pieces {
		l.descs = append(l.descs, l.add(t, p.headers...))
	}
	return l
}

func want(image []int) tree {
	t := tree{files: map[string]bool{}}
	for _, i := range image {
		pieces[i].change(&t)
	}
	return t
}

func (l library) chainID(image []int) string {
	ids := make([]digest.Digest, len(image))
	for i, p := range image {
		ids[i] = l.descs[p].Digest // not compressed
	}
	return identity.ChainID(ids).String()
}

// labels are those of the extraction of the topmost layer of image.
func (l library) labels(image []int, how way) map[string]string {
	top := l.descs[image[len(image)-1]].Digest.String()
	m := map[string]string{
		snapshots.LabelSnapshotRef: l.chainID(image),
		imageLabel:                 strings.Trim(fmt.Sprint(image), "[]"),
	}
	if len(image) > 1 {
		m[parentLabel] = l.chainID(image[:len(image)-1])
	}
	switch how {
	case diffIDs, staged:
		m[snapshots.LabelSnapshotDiffID] = top
	case blobs:
		m[blobLabel] = top
	}
	return m
}

// imageLabel says on a snapshot what it should show.
const imageLabel = "test/image"

// pulled is a layer that is being unpacked.
type pulled struct {
	key, name string // name is what is committed, empty before
	labels    map[string]string
	desc      ocispec.Descriptor
}

// pull unpacks an image as containerd does, and returns its snapshots. What it made is
// removed again if it fails.
func (l library) pull(t *testing.T, s *Snapshotter, image []int, how way) (made []string, err error) {
	t.Helper()
	who := l.counter.Add(1)
	todo := make([]*pulled, len(image))
	for i := range image {
		todo[i] = &pulled{
			key: fmt.Sprintf("default/%d/extract-%d %s", who, i, l.chainID(image[:i+1])), labels: l.labels(image[:i+1], how), desc: l.descs[image[i]],
		}
	}
	defer func() {
		if err != nil {
			l.abort(t, s, todo)
		}
	}()
	atOnce := how == late || how == staged
	if atOnce {
		for _, p := range todo {
			if err := l.fetch(t, s, p, ""); err != nil {
				return nil, err
			}
		}
	}
	parent := ""
	for i, p := range todo {
		if !atOnce {
			if err := l.fetch(t, s, p, parent); err != nil {
				return nil, err
			}
		}
		if p.name == "" {
			name := fmt.Sprintf("default/%d/%s", who, l.chainID(image[:i+1]))
			if err := s.Commit(ctx, name, p.key, snapshots.WithLabels(p.labels), snapshots.WithParent(parent)); err != nil {
				return nil, err
			}
			p.name = name
		}
		parent = p.name
		made = append(made, p.name)
	}
	return made, nil
}

// fetch prepares a snapshot and extracts its layer, if it has to.
func (l library) fetch(t *testing.T, s *Snapshotter, p *pulled, parent string) error {
	m, err := s.Prepare(ctx, p.key, parent, snapshots.WithLabels(p.labels))
	if errdefs.IsAlreadyExists(err) {
		found, findErr := findRef(s, p.labels[snapshots.LabelSnapshotRef], parent)
		if findErr != nil || len(found) == 0 {
			return fmt.Errorf("nothing found though %w (%w)", err, errdefs.ErrNotFound) // removed this moment
		}
		p.name = found[0]
		return nil
	}
	if err != nil || m[0].ReadOnly() {
		return err
	}
	return l.apply(t, s, m, p.desc)
}

func (l library) abort(t *testing.T, s *Snapshotter, todo []*pulled) {
	for _, p := range slices.Backward(todo) {
		for _, name := range []string{p.name, p.key} {
			if name == "" {
				continue
			}
			if err := s.Remove(ctx, name); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) && !errdefs.IsInternal(err) { // a failpoint
				t.Errorf("remove %s: %v", name, err)
			}
		}
	}
}

// findRef looks for committed snapshots as containerd does after ErrAlreadyExists.
func findRef(s *Snapshotter, ref, parent string) (found []string, err error) {
	filter := fmt.Sprintf("labels.%q==%s,parent==%q", snapshots.LabelSnapshotRef, ref, parent)
	err = s.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind == snapshots.KindCommitted {
			found = append(found, info.Name)
		}
		return nil
	}, filter)
	return found, err
}

// mustPull returns the snapshots of an image.
func (l library) mustPull(t *testing.T, s *Snapshotter, how way, image ...int) []string {
	t.Helper()
	made, err := l.pull(t, s, image, how)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.check(s, made[len(made)-1], image); err != nil {
		t.Error(err)
	}
	return made
}

// check compares what a view of a committed snapshot shows with what the image is.
func (l library) check(s *Snapshotter, name string, image []int) (err error) {
	key := fmt.Sprintf("default/%d/view", l.counter.Add(1))
	m, err := s.View(ctx, key, name)
	if err != nil {
		return err
	}
	defer func() {
		if removeErr := s.Remove(ctx, key); err == nil {
			err = removeErr
		}
	}()
	return mount.WithReadonlyTempMount(ctx, m, func(dir string) error {
		got, err := shownTree(dir)
		if err == nil && !reflect.DeepEqual(got, want(image)) {
			err = fmt.Errorf("image %v (%s) shows %v, want %v", image, name, got, want(image))
		}
		return err
	})
}

// shownTree reads a directory. Files hold their own name, or that of the first of
// several links.
func shownTree(dir string) (tree, error) {
	got := tree{files: map[string]bool{}}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if e.IsDir() {
			uid, gid, mode, err := ownerAndMode(path)
			got.d = fmt.Sprintf("%d:%d %o", uid, gid, mode)
			return err
		}
		data, err := os.ReadFile(path)
		if err == nil && string(data) != rel && string(data) != "d/7" {
			err = fmt.Errorf("%s holds %q", rel, data)
		}
		got.files[rel] = true
		return err
	})
	return got, err
}
