// SPDX-License-Identifier: Apache-2.0

package diff_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	containerddiff "github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/diff"
	"github.com/strata-snapshotter/strata/internal/testimage"
)

var errNotStaged = fmt.Errorf("not the test's: %w", errdefs.ErrNotFound)

const (
	ociTar     = ocispec.MediaTypeImageLayer
	foreignTar = "application/vnd.oci.image.layer.nondistributable.v1.tar"
	dockerTar  = images.MediaTypeDockerSchema2Layer
)

func TestMediaTypes(t *testing.T) {
	s := newStore(t)
	plain := tarOf(t, testimage.File("file", "content"))
	blobs := map[string][]byte{"plain": plain, "gzip": gzipped(t, plain), "zstd": zstded(t, plain)}
	for _, test := range []struct {
		mediaType, blob string
		want            error
	}{
		{ociTar, "plain", nil},
		{ociTar, "gzip", errdefs.ErrInvalidArgument},
		{ociTar + "+gzip", "gzip", nil},
		{ociTar + "+gzip", "zstd", nil}, // containerd looks at the blob, too
		{ociTar + "+gzip", "plain", nil},
		{ociTar + "+zstd", "zstd", nil},
		{foreignTar, "plain", nil},
		{foreignTar + "+gzip", "gzip", nil},
		{foreignTar + "+zstd", "zstd", nil},
		{dockerTar, "plain", nil},
		{dockerTar, "gzip", nil},
		{dockerTar + ".gzip", "gzip", nil},
		{images.MediaTypeDockerSchema2LayerZstd, "zstd", nil},
		{images.MediaTypeDockerSchema2LayerForeign, "plain", nil},
		{images.MediaTypeDockerSchema2LayerForeignGzip, "gzip", nil},
		{images.MediaTypeImageLayerEncrypted, "plain", errdefs.ErrNotImplemented},
		{images.MediaTypeImageLayerGzipEncrypted, "gzip", errdefs.ErrNotImplemented},
		{ociTar + "+gzip+gzip", "gzip", errdefs.ErrNotImplemented},
		{ociTar + "+zstd:chunked", "zstd", errdefs.ErrNotImplemented},
		{dockerTar + ".gzip+encrypted", "gzip", errdefs.ErrNotImplemented},
		{images.MediaTypeErofsLayer, "plain", errdefs.ErrNotImplemented},
		{ocispec.MediaTypeImageManifest, "plain", errdefs.ErrNotImplemented},
		{"", "plain", errdefs.ErrNotImplemented},
	} {
		t.Run(test.mediaType+" "+test.blob, func(t *testing.T) {
			dir := t.TempDir()
			desc := s.put(test.mediaType, blobs[test.blob])
			got, err := diff.New(diff.Config{Services: s.services()}).Apply(inNamespace(t), desc, bindMount(dir, "rw"))
			if !errors.Is(err, test.want) || err != nil && test.want == nil {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if err != nil {
				return
			}
			want := ocispec.Descriptor{MediaType: ociTar, Digest: digest.FromBytes(plain), Size: int64(len(plain))}
			if got.Digest != want.Digest || got.Size != want.Size || got.MediaType != want.MediaType {
				t.Errorf("got %+v, want %+v", got, want)
			}
			expect(t, "the directory", tree(t, dir), []string{"file=content"}, slices.Equal)
		})
	}
}

// TestNotImplementedContactsNobody: containerd asks its next differ, whatever the
// state of what this one needs.
func TestNotImplementedContactsNobody(t *testing.T) {
	d := diff.New(diff.Config{})
	for name, mounts := range map[string][]mount.Mount{
		images.MediaTypeImageLayerGzipEncrypted: bindMount("/nowhere", "rw"),
		ociTar:                                  {{Type: "format/overlay", Source: "overlay", Options: []string{"upperdir=/x"}}},
	} {
		if _, err := d.Apply(t.Context(), ocispec.Descriptor{MediaType: name}, mounts); !errdefs.IsNotImplemented(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReadOnlyTargets(t *testing.T) {
	s := newStore(t)
	desc := s.put(ociTar, tarOf(t, testimage.File("file", "")))
	dir := t.TempDir()
	for name, mounts := range map[string][]mount.Mount{
		"none":    nil,
		"bind":    bindMount(dir, "ro"),
		"view":    overlayMount("lowerdir=" + dir + ":" + dir),
		"overlay": overlayMount("ro", "upperdir="+dir, "workdir="+dir, "lowerdir="+dir),
	} {
		if _, err := diff.New(diff.Config{Services: s.services()}).Apply(inNamespace(t), desc, mounts); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// layers of the tests with foreign targets: the second deletes from the first.
func foreignLayers(t *testing.T, s *store) (first, second ocispec.Descriptor) {
	first = s.put(ociTar+"+gzip", gzipped(t, tarOf(t, testimage.Dir("d"), testimage.File("d/gone", "x"), testimage.File("d/kept", "1"),
		testimage.Dir("o"), testimage.File("o/hidden", "y"), testimage.File("whited", "z"))))
	second = s.put(ociTar+"+gzip", gzipped(t, tarOf(t, testimage.Dir("d"), testimage.Whiteout("d/gone"), testimage.File("d/new", "2"),
		testimage.Dir("o"), testimage.Opaque("o"), testimage.File("o/only", "3"), testimage.Whiteout("whited"))))
	return first, second
}

var foreignResult = []string{"d", "d/kept=1", "d/new=2", "o", "o/only=3"}

func TestForeignTargets(t *testing.T) {
	s := newStore(t)
	first, second := foreignLayers(t, s)
	d := diff.New(diff.Config{Services: s.services()})
	apply := func(t *testing.T, desc ocispec.Descriptor, mounts []mount.Mount) {
		t.Helper()
		_, err := d.Apply(inNamespace(t), desc, mounts, containerddiff.WithSyncFs(true))
		must(t, err)
	}
	t.Run("bind", func(t *testing.T) {
		dir := t.TempDir()
		apply(t, first, bindMount(dir, "rw"))
		apply(t, second, bindMount(dir, "rw"))
		expect(t, "the directory", tree(t, dir), foreignResult, slices.Equal)
	})
	t.Run("overlay", func(t *testing.T) {
		p := mkdirs(t, t.TempDir(), "lower", "upper", "work")
		apply(t, first, bindMount(p[0], "rw"))
		mounts := overlayMount("workdir="+p[2], "upperdir="+p[1], "lowerdir="+p[0])
		apply(t, second, mounts)
		expect(t, "the merged view", view(t, mounts), foreignResult, slices.Equal)
		expect(t, "the layer below", tree(t, p[0]), []string{"d", "d/gone=x", "d/kept=1", "o", "o/hidden=y", "whited=z"}, slices.Equal)
	})
	t.Run("overlay without a parent yet", func(t *testing.T) {
		p := mkdirs(t, t.TempDir(), "lower", "upper", "work")
		apply(t, second, overlayMount("rw", "upperdir="+p[1]))
		apply(t, first, bindMount(p[0], "rw"))
		mounts := overlayMount("workdir="+p[2], "upperdir="+p[1], "lowerdir="+p[0])
		expect(t, "the merged view", view(t, mounts), foreignResult, slices.Equal)
	})
	t.Run("overlay over nothing", func(t *testing.T) {
		p := mkdirs(t, t.TempDir(), "lower", "upper", "work", "empty")
		apply(t, second, overlayMount("workdir="+p[2], "upperdir="+p[1], "lowerdir="+p[3]))
		apply(t, first, bindMount(p[0], "rw"))
		mounts := overlayMount("workdir="+p[2], "upperdir="+p[1], "lowerdir="+p[0])
		expect(t, "the merged view", view(t, mounts), foreignResult, slices.Equal)
	})
	t.Run("a mount that does not work", func(t *testing.T) {
		_, err := d.Apply(inNamespace(t), first, bindMount("/nowhere", "rw"))
		if !errdefs.IsFailedPrecondition(err) {
			t.Error(err)
		}
	})
}

// TestAsContainerd compares with containerd's own applier on a plain directory.
func TestAsContainerd(t *testing.T) {
	s := newStore(t)
	first, second := foreignLayers(t, s)
	ours, theirs := t.TempDir(), t.TempDir()
	for _, desc := range []ocispec.Descriptor{first, second} {
		a, err := diff.New(diff.Config{Services: s.services()}).Apply(inNamespace(t), desc, bindMount(ours, "rw"))
		must(t, err)
		b, err := apply.NewFileSystemApplier(s.db.ContentStore()).Apply(inNamespace(t), desc, bindMount(theirs, "rw"))
		must(t, err)
		if a.Digest != b.Digest || a.Size != b.Size || a.MediaType != b.MediaType {
			t.Errorf("%+v, containerd's %+v", a, b)
		}
	}
	expect(t, "the directory", tree(t, ours), tree(t, theirs), slices.Equal)
}

func TestStage(t *testing.T) {
	s := newStore(t)
	_, second := foreignLayers(t, s)
	staging := &directoryStaging{dir: t.TempDir()}
	d := diff.New(diff.Config{Services: s.services(), Staging: staging})
	got, err := d.Apply(inNamespace(t), second, bindMount(staging.dir, "rw"))
	must(t, err)
	if len(staging.sealed) != 1 || staging.sealed[0].Digest != second.Digest || staging.results[0].DiffID != got.Digest || staging.released != 1 {
		t.Errorf("staging saw %+v", staging)
	}
	var whiteout os.FileInfo
	if whiteout, err = os.Lstat(filepath.Join(staging.dir, "whited")); err != nil || whiteout.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("no whiteout in the stage: %v, %v", whiteout, err)
	}
	other := t.TempDir()
	_, err = d.Apply(inNamespace(t), second, bindMount(other, "rw"))
	must(t, err)
	if len(staging.sealed) != 1 {
		t.Error("a foreign directory was sealed")
	}
}

func TestStageFails(t *testing.T) {
	s := newStore(t)
	desc := s.put(ociTar, []byte("this is no tar at all, and longer than a tar's header would be"))
	staging := &directoryStaging{dir: t.TempDir()}
	d := diff.New(diff.Config{Services: s.services(), Staging: staging})
	if _, err := d.Apply(inNamespace(t), desc, bindMount(staging.dir, "rw")); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
	if len(staging.sealed) != 0 || staging.released != 1 {
		t.Errorf("staging saw %+v", staging)
	}
	staging = &directoryStaging{dir: t.TempDir(), sealErr: errdefs.ErrResourceExhausted}
	d = diff.New(diff.Config{Services: s.services(), Staging: staging})
	good := s.put(ociTar, tarOf(t, testimage.File("file", "")))
	if _, err := d.Apply(inNamespace(t), good, bindMount(staging.dir, "rw")); !errdefs.IsResourceExhausted(err) {
		t.Error(err)
	}
	if staging.released != 1 {
		t.Errorf("staging saw %+v", staging)
	}
}

func TestBrokenBlobs(t *testing.T) {
	s := newStore(t)
	plain := tarOf(t, testimage.File("file", "content"))
	gz := gzipped(t, plain)
	changed := slices.Clone(gz)
	changed[len(changed)-6] ^= 1 // the checksum
	for name, blob := range map[string][]byte{
		"trailing garbage": append(slices.Clone(gz), "garbage"...),
		"trailing zeros":   append(slices.Clone(gz), 0, 0, 0, 0),
		"truncated":        gz[:len(gz)-9],
		"checksum":         changed,
	} {
		desc := s.put(ociTar+"+gzip", blob)
		if _, err := diff.New(diff.Config{Services: s.services()}).Apply(inNamespace(t), desc, bindMount(t.TempDir(), "rw")); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	members := s.put(ociTar+"+gzip", append(gzipped(t, plain[:700]), gzipped(t, plain[700:])...))
	got, err := diff.New(diff.Config{Services: s.services()}).Apply(inNamespace(t), members, bindMount(t.TempDir(), "rw"))
	if err != nil || got.Digest != digest.FromBytes(plain) {
		t.Errorf("two members: %v, %v", got, err)
	}
}

func TestNamespaces(t *testing.T) {
	s := newStore(t)
	desc := s.put(ociTar, tarOf(t, testimage.File("file", "")))
	d := diff.New(diff.Config{Services: s.services()})
	other := namespaces.WithNamespace(t.Context(), "other")
	if _, err := d.Apply(other, desc, bindMount(t.TempDir(), "rw")); !errdefs.IsNotFound(err) {
		t.Errorf("another namespace's blob: %v", err)
	}
	if _, err := d.Apply(t.Context(), desc, bindMount(t.TempDir(), "rw")); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("no namespace: %v", err)
	}
}

func TestProgress(t *testing.T) {
	s := newStore(t)
	desc := s.put(ociTar+"+gzip", gzipped(t, tarOf(t, testimage.File("file", "content"))))
	var seen []int64
	progress := containerddiff.WithProgress(func(_ ocispec.Descriptor, n int64) { seen = append(seen, n) })
	_, err := diff.New(diff.Config{Services: s.services()}).Apply(inNamespace(t), desc, bindMount(t.TempDir(), "rw"), progress)
	must(t, err)
	if len(seen) < 2 || seen[0] != 0 || seen[len(seen)-1] != desc.Size || !slices.IsSorted(seen) {
		t.Errorf("progress was %v, want 0 to %d", seen, desc.Size)
	}
}

// TestCancel cancels at every step of the progress: nothing may be left mounted, open
// or running, and no cancelled call may succeed half.
func TestCancel(t *testing.T) {
	s := newStore(t)
	checkGoroutines(t)
	var entries []testimage.Entry
	for i := range 200 {
		random := make([]byte, 20_000)
		for j := range random {
			random[j] = byte(j*i + j>>7)
		}
		entries = append(entries, testimage.File(fmt.Sprintf("file%d", i), string(random)))
	}
	desc := s.put(ociTar, tarOf(t, entries...))
	for step := range 6 {
		ctx, cancel := context.WithCancel(inNamespace(t))
		calls := 0
		progress := containerddiff.WithProgress(func(ocispec.Descriptor, int64) {
			if calls++; calls > step {
				cancel()
			}
		})
		_, err := diff.New(diff.Config{Services: s.services()}).Apply(ctx, desc, bindMount(t.TempDir(), "rw"), progress)
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled at step %d: %v", step, err)
		}
	}
	ctx, cancel := context.WithCancel(inNamespace(t))
	cancel()
	if _, err := diff.New(diff.Config{Services: s.services()}).Apply(ctx, desc, bindMount(t.TempDir(), "rw")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
}
