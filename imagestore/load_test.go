// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocilayout "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/klauspost/compress/zstd"

	"github.com/strata-snapshotter/strata/internal/testimage"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/internal/testutil/testregistry"
)

// run runs a program that makes or reads images.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	testutil.RequireTool(t, name)
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// dockerArchive is an archive of docker save.
func dockerArchive(t testing.TB, img v1.Image) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "docker.tar")
	must(t, testimage.WriteArchive(path, "example.test/sample:1", img))
	return path
}

// layoutOf is an OCI layout without names.
func layoutOf(t testing.TB, index v1.ImageIndex) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "Some_Layout")
	_, err := ocilayout.Write(dir, index)
	must(t, err)
	return dir
}

func loadOne(t testing.TB, s *Store, o LoadOptions) Image {
	t.Helper()
	images, err := s.Load(context.Background(), o)
	must(t, err)
	if len(images) != 1 {
		t.Fatalf("loaded %+v, want one image", images)
	}
	return images[0]
}

func packed(t testing.TB, path string, newWriter func(io.Writer) io.WriteCloser) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	var out bytes.Buffer
	w := newWriter(&out)
	_, err = w.Write(data)
	must(t, errors.Join(err, w.Close()))
	return out.Bytes()
}

func gzipWriter(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }

func zstdWriter(w io.Writer) io.WriteCloser {
	z, err := zstd.NewWriter(w)
	if err != nil {
		panic(err)
	}
	return z
}

func TestLoadDockerArchive(t *testing.T) {
	path := dockerArchive(t, sample(t))
	plain, err := os.ReadFile(path)
	must(t, err)
	for name, o := range map[string]LoadOptions{
		"file": {Path: path},
		"pipe": {Reader: bytes.NewReader(plain)},
		"gzip": {Reader: bytes.NewReader(packed(t, path, gzipWriter))},
		"zstd": {Reader: bytes.NewReader(packed(t, path, zstdWriter))},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			image := loadOne(t, s, o)
			if image.Name != "example.test/sample:1" {
				t.Errorf("the image is called %s", image.Name)
			}
			checkSample(t, mounted(t, s, image))
			ls, err := s.Leases().List(s.Context(context.Background()), "labels.\"strata/pull\"")
			if err != nil || len(ls) != 0 {
				t.Errorf("leases %v, %v are left", ls, err)
			}
		})
	}
}

// skopeo writes what other tools write; what it writes is what it was given.
func TestLoadSkopeo(t *testing.T) {
	testutil.RequireTool(t, "skopeo")
	dir, source := t.TempDir(), "docker-archive:"+dockerArchive(t, sample(t))
	for _, c := range []struct{ transport, path, tag, option, want string }{
		{"oci", "layout", ":v1", "", "localhost/layout:v1"},
		{"oci", "zstd", ":v1", "--dest-compress-format=zstd", "localhost/zstd:v1"},
		{"oci", "untagged", "", "", "localhost/untagged:latest"},
		{"oci-archive", "Archive.tar", ":example.test/named:2", "", "example.test/named:2"},
		{"oci-archive", "tagged.tar", ":two", "", "localhost/tagged:two"},
		{"docker-archive", "docker.tar", ":example.test/named:3", "", "example.test/named:3"},
	} {
		t.Run(c.path, func(t *testing.T) {
			path := filepath.Join(dir, c.path)
			args := []string{"--insecure-policy", "copy", "-q", source, c.transport + ":" + path + c.tag}
			if c.option != "" {
				args = append(args, c.option)
			}
			run(t, "skopeo", args...)
			s := newStore(t)
			image := loadOne(t, s, LoadOptions{Path: path})
			if image.Name != c.want {
				t.Errorf("the image is called %s, want %s", image.Name, c.want)
			}
			checkSample(t, mounted(t, s, image))
		})
	}
}

// umoci makes an image of a directory, and reads what Save wrote.
func TestLoadUmoci(t *testing.T) {
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	must(t, os.MkdirAll(filepath.Join(tree, "opt"), 0o755))
	must(t, os.WriteFile(filepath.Join(tree, "opt", "file"), []byte("umoci\n"), 0o640))
	target := filepath.Join(dir, "layout")
	image := target + ":new"
	run(t, "umoci", "init", "--layout", target)
	run(t, "umoci", "new", "--image", image)
	run(t, "umoci", "insert", "--image", image, filepath.Join(tree, "opt"), "/opt")
	run(t, "umoci", "insert", "--image", image, "--whiteout", "/opt/nothing")
	run(t, "umoci", "config", "--image", image, "--config.env", "A=b", "--config.user", "7:8")
	s := newStore(t)
	loaded := loadOne(t, s, LoadOptions{Path: target, Name: "example.test/umoci"})
	if loaded.Name != "example.test/umoci:new" {
		t.Errorf("the image is called %s", loaded.Name)
	}
	checkFile(t, mounted(t, s, loaded), "opt/file", "umoci\n")
	d, err := s.Describe(context.Background(), loaded)
	if err != nil || d.User != "7:8" || len(d.Env) == 0 {
		t.Errorf("described as %+v, %v", d, err)
	}
	saved := saveFile(t, s, loaded.Name)
	run(t, "skopeo", "--insecure-policy", "copy", "-q", "oci-archive:"+saved, "oci:"+filepath.Join(dir, "again")+":x")
	run(t, "umoci", "unpack", "--rootless", "--image", filepath.Join(dir, "again")+":x", filepath.Join(dir, "bundle"))
	checkFile(t, filepath.Join(dir, "bundle", "rootfs"), "opt/file", "umoci\n")
}

func saveFile(t testing.TB, s *Store, refs ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "saved.tar")
	f, err := os.Create(path)
	must(t, err)
	must(t, errors.Join(s.Save(context.Background(), f, refs...), f.Close()))
	return path
}

// What was saved is the same image where it is loaded, and of an index what is there.
func TestSaveAndLoad(t *testing.T) {
	r := testregistry.Start(t)
	single := r.Push(t, "single:1", build(t, heavy("a", 1000)))
	multi := r.PushIndex(t, "multi:1", indexOf(t, sample(t), forPlatform(t, build(t, heavy("f", 1000)), "arm64", "")))
	from := newStore(t)
	first, second := pull(t, from, PullOptions{Ref: single}), pull(t, from, PullOptions{Ref: multi})
	path := saveFile(t, from, single, multi)
	to := newStore(t)
	images, err := to.Load(context.Background(), LoadOptions{Path: path})
	must(t, err)
	if len(images) != 2 || images[0].Target.Digest != first.Target.Digest || images[1].Target.Digest != second.Target.Digest {
		t.Fatalf("loaded %+v", images)
	}
	checkSample(t, mounted(t, to, images[1]))
	run(t, "skopeo", "inspect", "--raw", "oci-archive:"+saveFile(t, from, single))
	must(t, os.WriteFile(path, nil, 0o600))
	if err := from.Save(context.Background(), io.Discard, "nothing"); !errdefs.IsNotFound(err) {
		t.Errorf("save what is not here: %v, want ErrNotFound", err)
	}
	pull(t, from, PullOptions{Ref: multi, Platform: "linux/arm64"})
	if err := from.Save(context.Background(), io.Discard, single, multi); !errdefs.IsInvalidArgument(err) {
		t.Errorf("save images of two platforms: %v, want ErrInvalidArgument", err)
	}
	pull(t, from, PullOptions{Ref: multi, Platform: "linux/arm64"})
	loadOne(t, to, LoadOptions{Path: saveFile(t, from, multi), Platform: "linux/arm64"})
}

// Images without names are one for several platforms, or called after the file.
func TestLoadLayout(t *testing.T) {
	dir := layoutOf(t, indexOf(t, sample(t), forPlatform(t, build(t, heavy("f", 1000)), "arm64", "")))
	s := newStore(t)
	image := loadOne(t, s, LoadOptions{Path: dir})
	if image.Name != "localhost/some-layout:latest" || len(image.DiffIDs) != 5 {
		t.Errorf("loaded %+v", image)
	}
	image = loadOne(t, s, LoadOptions{Path: dir, Name: "mine:1", Platform: "linux/arm64"})
	if image.Name != "docker.io/library/mine:1" || image.Platform.Architecture != "arm64" {
		t.Errorf("loaded %+v", image)
	}
	if _, err := s.Load(context.Background(), LoadOptions{Path: dir, Platform: "linux/riscv64"}); !errdefs.IsNotFound(err) {
		t.Errorf("a platform that is not there: %v, want ErrNotFound", err)
	}
}

func TestLoadFailures(t *testing.T) {
	archive, err := os.ReadFile(dockerArchive(t, build(t, heavy("a", 300_000))))
	must(t, err)
	img := build(t, heavy("b", 300_000))
	blob := func(dir string) string {
		layers, err := img.Layers()
		must(t, err)
		digest, err := layers[0].Digest()
		must(t, err)
		return filepath.Join(dir, "blobs", "sha256", digest.Hex)
	}
	damaged := func(damage func(dir string) error) LoadOptions {
		dir := layoutOf(t, indexOf(t, img))
		must(t, damage(dir))
		return LoadOptions{Path: dir}
	}
	outside := filepath.Join(t.TempDir(), "outside")
	s := newStore(t)
	for name, c := range map[string]struct {
		options LoadOptions
		class   func(error) bool
		says    string
	}{
		"no file":     {LoadOptions{Path: "/nonexistent.tar"}, errdefs.IsNotFound, "/nonexistent.tar"},
		"empty":       {LoadOptions{Reader: strings.NewReader("")}, errdefs.IsDataLoss, "not an image archive"},
		"text":        {LoadOptions{Reader: strings.NewReader(strings.Repeat("text", 1000))}, errdefs.IsDataLoss, "not an image archive"},
		"cut off":     {LoadOptions{Reader: bytes.NewReader(archive[:len(archive)/2])}, errdefs.IsDataLoss, "too early"},
		"cut gzip":    {LoadOptions{Reader: bytes.NewReader(archiveGzip(archive)[:100_000])}, errdefs.IsDataLoss, "too early"},
		"no layout":   {LoadOptions{Path: t.TempDir()}, errdefs.IsDataLoss, "not an OCI layout"},
		"no blob":     {damaged(func(dir string) error { return os.Remove(blob(dir)) }), errdefs.IsDataLoss, "no such file"},
		"short blob":  {damaged(func(dir string) error { return os.Truncate(blob(dir), 1000) }), errdefs.IsDataLoss, "1000 bytes"},
		"wrong blob":  {damaged(func(dir string) error { return flip(blob(dir)) }), errdefs.IsDataLoss, "something else"},
		"blob a fifo": {damaged(func(dir string) error { return fifo(blob(dir)) }), errdefs.IsDataLoss, "no regular file"},
		"link out": {damaged(func(dir string) error {
			return errors.Join(os.Rename(blob(dir), outside), os.Symlink(outside, blob(dir)))
		}), errdefs.IsDataLoss, "escapes"},
		"no index":  {damaged(func(dir string) error { return os.Remove(filepath.Join(dir, "index.json")) }), errdefs.IsDataLoss, "index.json"},
		"bad index": {damaged(func(dir string) error { return os.WriteFile(filepath.Join(dir, "index.json"), []byte("{"), 0o600) }), errdefs.IsDataLoss, "index.json"},
		"no images": {damaged(func(dir string) error { return os.WriteFile(filepath.Join(dir, "index.json"), []byte("{}"), 0o600) }), errdefs.IsDataLoss, "no image"},
		"bad name":  {LoadOptions{Path: layoutOf(t, indexOf(t, img)), Name: "NO NAME"}, errdefs.IsInvalidArgument, "NO NAME"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Load(context.Background(), c.options)
			if err == nil || !c.class(err) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v: wrong class, or it says nothing of %q", err, c.says)
			}
			if n := count(t, s, snapshots.KindActive); n != 0 {
				t.Errorf("%d half-done layers are left", n)
			}
		})
	}
	// Nothing of all that is in the way of what works, nor of the empty store.
	loadOne(t, s, LoadOptions{Reader: bytes.NewReader(archive)})
	_, err = s.Remove(context.Background(), "example.test/sample:1")
	must(t, err)
	_, err = s.GC(context.Background(), DropUnfinished)
	must(t, err)
	checkNothing(t, s)
}

func archiveGzip(data []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(data)
	_ = w.Close()
	return out.Bytes()
}

// What an archive that was cut off has left is not taken for the beginning of another's
// file of the same name.
func TestLoadAfterCut(t *testing.T) {
	archive := func(file string) []byte { // the names have one length, and so the layers
		img := build(t, heavy(file, 3<<20))
		layers, err := img.Layers()
		must(t, err)
		layer, err := layers[0].Uncompressed()
		must(t, err)
		data, err := io.ReadAll(layer)
		must(t, err)
		config, err := img.RawConfigFile()
		must(t, err)
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		for _, f := range []struct {
			name string
			data []byte
		}{
			{"layer.tar", data}, {"config.json", config},
			{"manifest.json", []byte(`[{"Config":"config.json","RepoTags":["a.test/a:1"],"Layers":["layer.tar"]}]`)},
		} {
			must(t, w.WriteHeader(&tar.Header{Name: f.name, Size: int64(len(f.data)), Mode: 0o600}))
			_, err := w.Write(f.data)
			must(t, err)
		}
		must(t, w.Close())
		return out.Bytes()
	}
	s := newStore(t)
	_, err := s.Load(context.Background(), LoadOptions{Reader: bytes.NewReader(archive("a")[:2<<20])})
	if !errdefs.IsDataLoss(err) {
		t.Fatalf("an archive that is cut off: %v, want ErrDataLoss", err)
	}
	image := loadOne(t, s, LoadOptions{Reader: bytes.NewReader(archive("b"))})
	must(t, s.Check(context.Background(), image))
}
