// SPDX-License-Identifier: Apache-2.0

package diff_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	containerddiff "github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/diff"
)

const uncompressedLabel = "containerd.io/uncompressed"

// snapshot is an overlay with a layer below it that a container changed.
type snapshot struct {
	dir          string
	lower, upper []mount.Mount
}

func newSnapshot(t *testing.T) snapshot {
	t.Helper()
	dir := t.TempDir()
	p := mkdirs(t, dir, "lower/d", "upper", "work", "empty")
	write(t, dir+"/lower/d/gone", "x")
	write(t, dir+"/lower/d/kept", "1")
	write(t, dir+"/lower/o/hidden", "y")
	lower := strings.TrimSuffix(p[0], "/d")
	s := snapshot{
		dir:   dir,
		lower: overlayMount("lowerdir=" + lower + ":" + p[3]),
		upper: overlayMount("index=off", "workdir="+p[2], "upperdir="+p[1], "lowerdir="+lower),
	}
	must(t, mount.WithTempMount(t.Context(), s.upper, func(root string) error {
		write(t, root+"/d/new", "2")
		return errors.Join(os.Remove(root+"/d/gone"), os.RemoveAll(root+"/o"), os.Mkdir(root+"/o", 0o700),
			os.WriteFile(root+"/o/only", []byte("3"), 0o600))
	}))
	return s
}

// differs are one that knows the snapshot as its own and one that walks it.
func (n snapshot) differs(s *store) map[string]*diff.Differ {
	owns := func(path string) bool { return strings.HasPrefix(path, n.dir+"/") }
	return map[string]*diff.Differ{
		"own":     diff.New(diff.Config{Services: s.services(), Owns: owns}),
		"foreign": diff.New(diff.Config{Services: s.services()}),
	}
}

var snapshotChanges = []string{"d", "d/.wh.gone", "d/new", "o", "o/.wh..wh..opq", "o/only"}

// TestCompareRoundTrip: the layer, applied over what was below, gives what was seen.
func TestCompareRoundTrip(t *testing.T) {
	for _, mediaType := range []string{"", ociTar, ociTar + "+gzip", ociTar + "+zstd"} {
		s := newStore(t)
		n := newSnapshot(t)
		for name, d := range n.differs(s) {
			t.Run(name+" "+mediaType, func(t *testing.T) {
				desc, err := d.Compare(inNamespace(t), n.lower, n.upper, containerddiff.WithMediaType(mediaType))
				must(t, err)
				if mediaType == "" {
					mediaType = ociTar + "+gzip"
				}
				if desc.MediaType != mediaType {
					t.Errorf("media type is %q", desc.MediaType)
				}
				checkLabel(t, s, desc)
				flat := t.TempDir()
				must(t, os.CopyFS(flat, os.DirFS(n.dir+"/lower")))
				_, err = d.Apply(inNamespace(t), desc, bindMount(flat, "rw"))
				must(t, err)
				expect(t, "the layer applied", tree(t, flat), view(t, n.upper), slices.Equal)
			})
		}
	}
}

func checkLabel(t *testing.T, s *store, desc ocispec.Descriptor) {
	t.Helper()
	plain := s.read(desc)
	info, err := s.db.ContentStore().Info(inNamespace(t), desc.Digest)
	must(t, err)
	if info.Size != desc.Size {
		t.Errorf("size is %d, of %d", desc.Size, info.Size)
	}
	if desc.MediaType != ociTar && info.Labels[uncompressedLabel] != digest.FromBytes(plain).String() {
		t.Errorf("labels are %v, the layer is %s", info.Labels, digest.FromBytes(plain))
	}
}

func TestCompareKinds(t *testing.T) {
	s := newStore(t)
	n := newSnapshot(t)
	d := n.differs(s)["own"]
	empty := bindMount(n.dir+"/empty", "ro")
	upper, lower := n.dir+"/upper", n.dir+"/lower"
	lowerNames := []string{"d", "d/gone", "d/kept", "o", "o/hidden"}
	for name, test := range map[string]struct {
		lower, upper []mount.Mount
		want         []string
	}{
		"first layer":         {empty, bindMount(lower, "rw"), lowerNames},
		"first, as extracted": {empty, overlayMount("upperdir="+lower, "workdir="+n.dir+"/work2", "lowerdir="+n.dir+"/empty"), lowerNames},
		"committed":           {n.lower, overlayMount("lowerdir=" + upper + ":" + lower), snapshotChanges},
		"first, committed":    {empty, overlayMount("lowerdir=" + lower + ":" + n.dir + "/empty"), lowerNames},
		// Not one directory apart: both are walked.
		"against nothing": {empty, n.upper, []string{"d", "d/kept", "d/new", "o", "o/only"}},
		"the same":        {n.lower, n.lower, []string{}},
		"unknown option":  {n.lower, overlayMount(append(slices.Clone(n.upper[0].Options), "x-unknown=1")...), nil},
	} {
		t.Run(name, func(t *testing.T) {
			must(t, os.MkdirAll(n.dir+"/work2", 0o700))
			desc, err := d.Compare(inNamespace(t), test.lower, test.upper, containerddiff.WithMediaType(ociTar))
			if test.want == nil {
				// The kernel does not know it either, as the walk finds out.
				if !errdefs.IsFailedPrecondition(err) {
					t.Errorf("got %v", err)
				}
				return
			}
			must(t, err)
			got := slices.DeleteFunc(names(t, s.read(desc)), func(name string) bool { return name == "" })
			want := slices.Clone(test.want)
			slices.Sort(want)
			if got == nil {
				got = []string{}
			}
			expect(t, "the layer", got, want, slices.Equal)
		})
	}
}

func TestSourceDateEpoch(t *testing.T) {
	s := newStore(t)
	n := newSnapshot(t)
	latest := time.Unix(1_000_000_000, 0)
	for name, d := range n.differs(s) {
		desc, err := d.Compare(inNamespace(t), n.lower, n.upper, containerddiff.WithSourceDateEpoch(&latest))
		must(t, err)
		for r := tar.NewReader(bytes.NewReader(s.read(desc))); ; {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			must(t, err)
			if h.ModTime.After(latest) {
				t.Errorf("%s: %s is of %v", name, h.Name, h.ModTime)
			}
		}
	}
}

// TestCompareTwice: the same layer again is the same blob, and gets the label that
// another writer did not give it.
func TestCompareTwice(t *testing.T) {
	s := newStore(t)
	n := newSnapshot(t)
	d := n.differs(s)["own"]
	first, err := d.Compare(inNamespace(t), n.lower, n.upper, containerddiff.WithLabels(map[string]string{"mine": "1"}))
	must(t, err)
	info, err := s.db.ContentStore().Info(inNamespace(t), first.Digest)
	must(t, err)
	if info.Labels["mine"] != "1" {
		t.Errorf("labels are %v", info.Labels)
	}
	delete(info.Labels, uncompressedLabel)
	_, err = s.db.ContentStore().Update(inNamespace(t), info, "labels")
	must(t, err)
	second, err := d.Compare(inNamespace(t), n.lower, n.upper, containerddiff.WithReference("given"))
	must(t, err)
	if second.Digest != first.Digest {
		t.Errorf("%s, then %s", first.Digest, second.Digest)
	}
	checkLabel(t, s, second)
	checkNoUploads(t, s)
}

func checkNoUploads(t *testing.T, s *store) {
	t.Helper()
	left, err := s.db.ContentStore().ListStatuses(inNamespace(t))
	must(t, err)
	if len(left) > 0 {
		t.Errorf("uploads were left: %+v", left)
	}
}

// TestReferenceIsReused: what an earlier attempt left under the reference is not part
// of the blob.
func TestReferenceIsReused(t *testing.T) {
	s := newStore(t)
	n := newSnapshot(t)
	w, err := s.db.ContentStore().Writer(inNamespace(t), content.WithRef("given"))
	must(t, err)
	_, err = w.Write([]byte("the rest of another attempt"))
	must(t, err)
	must(t, w.Close())
	for name, d := range n.differs(s) {
		desc, err := d.Compare(inNamespace(t), n.lower, n.upper, containerddiff.WithReference("given"), containerddiff.WithMediaType(ociTar))
		must(t, err)
		if got := names(t, s.read(desc)); !slices.Contains(got, "d/new") {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestCompareRefuses(t *testing.T) {
	s := newStore(t)
	n := newSnapshot(t)
	for name, d := range n.differs(s) {
		_, err := d.Compare(inNamespace(t), n.lower, n.upper, containerddiff.WithMediaType("application/vnd.erofs.layer.v1"))
		if !errdefs.IsNotImplemented(err) {
			t.Errorf("%s: media type: %v", name, err)
		}
		if _, err := d.Compare(t.Context(), n.lower, n.upper); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("%s: no namespace: %v", name, err)
		}
	}
}

func TestCustomCompressor(t *testing.T) {
	s := newStore(t)
	n := newSnapshot(t)
	compressor := func(w io.Writer, _ string) (io.WriteCloser, error) {
		_, err := io.WriteString(w, "custom")
		return nopCloser{w}, err
	}
	desc, err := n.differs(s)["own"].Compare(inNamespace(t), n.lower, n.upper,
		containerddiff.WithMediaType("x/custom"), containerddiff.WithCompressor(compressor))
	must(t, err)
	blob, err := content.ReadBlob(inNamespace(t), s.db.ContentStore(), desc)
	must(t, err)
	if !bytes.HasPrefix(blob, []byte("custom")) {
		t.Error("the compressor was not used")
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// TestLease: the blob survives collections until its lease, of our own or the
// caller's, is gone.
func TestLease(t *testing.T) {
	s := newStore(t)
	manager := metadata.NewLeaseManager(s.db)
	n := newSnapshot(t)
	for name, d := range n.differs(s) {
		desc, err := d.Compare(inNamespace(t), n.lower, n.upper)
		must(t, err)
		s.collect()
		_ = s.read(desc)
		all, err := manager.List(inNamespace(t))
		must(t, err)
		if len(all) != 1 {
			t.Fatalf("%s: leases are %v", name, all)
		}
		expires, err := time.Parse(time.RFC3339, all[0].Labels["containerd.io/gc.expire"])
		if err != nil || time.Until(expires) > 2*time.Hour {
			t.Errorf("%s: it expires at %v, %v", name, expires, err)
		}
		must(t, manager.Delete(inNamespace(t), all[0]))
		s.collect()
		if _, err := s.db.ContentStore().Info(inNamespace(t), desc.Digest); !errdefs.IsNotFound(err) {
			t.Errorf("%s: without a lease: %v", name, err)
		}
	}
	own, err := manager.Create(inNamespace(t), leases.WithID("callers"))
	must(t, err)
	_, err = n.differs(s)["own"].Compare(leases.WithLease(inNamespace(t), own.ID), n.lower, n.upper)
	must(t, err)
	all, err := manager.List(inNamespace(t))
	must(t, err)
	held, err := manager.ListResources(inNamespace(t), own)
	must(t, err)
	if len(all) != 1 || len(held) != 1 {
		t.Errorf("leases are %v, the caller's holds %v", all, held)
	}
}

// TestFailedCompare leaves no lease, no upload and no mount.
func TestFailedCompare(t *testing.T) {
	s := newStore(t)
	checkGoroutines(t)
	n := newSnapshot(t)
	services := s.services()
	services.Content = failing{services.Content}
	owns := func(string) bool { return true }
	for name, test := range map[string]struct {
		lower, upper []mount.Mount
	}{
		"write":             {n.lower, n.upper},
		"walk":              {n.lower, bindMount(filepath.Join(n.dir, "upper"), "ro", "nosuid")},
		"mount":             {overlayMount("lowerdir=/nowhere:/nowhere2"), overlayMount("lowerdir=/nowhere:/nowhere2", "upperdir="+n.dir+"/upper", "workdir="+n.dir+"/work")},
		"upper not a mount": {n.lower, nil},
	} {
		for _, mediaType := range []string{ociTar, ociTar + "+gzip", ociTar + "+zstd"} {
			d := diff.New(diff.Config{Services: services, Owns: owns})
			if _, err := d.Compare(inNamespace(t), test.lower, test.upper, containerddiff.WithMediaType(mediaType)); err == nil {
				t.Errorf("%s: no error", name)
			}
		}
	}
	all, err := metadata.NewLeaseManager(s.db).List(inNamespace(t))
	must(t, err)
	if len(all) > 0 {
		t.Errorf("leases were left: %v", all)
	}
	checkNoUploads(t, s)
}
