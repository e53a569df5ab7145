// SPDX-License-Identifier: Apache-2.0

package diff_test

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/diff"
	"github.com/strata-snapshotter/strata/internal/testimage"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

const testNamespace = "test"

// store is containerd's metadata and content, in this process.
type store struct {
	t    *testing.T
	root string
	db   *metadata.DB
}

func newStore(t *testing.T) *store {
	t.Helper()
	testutil.RequireRoot(t)
	dir := t.TempDir()
	root := filepath.Join(dir, "content")
	blobs, err := local.NewStore(root)
	must(t, err)
	bolt, err := bbolt.Open(filepath.Join(dir, "meta.db"), 0o600, &bbolt.Options{NoSync: true})
	must(t, err)
	t.Cleanup(func() { must(t, bolt.Close()) })
	db := metadata.NewDB(bolt, blobs, nil)
	must(t, db.Init(t.Context()))
	checkTempMounts(t)
	return &store{t: t, root: root, db: db}
}

func (s *store) services() diff.Services {
	return diff.Services{
		Content: s.db.ContentStore(),
		Leases:  metadata.NewLeaseManager(s.db),
		Root:    func(context.Context) (string, error) { return s.root, nil },
	}
}

// put stores a blob in the test's namespace.
func (s *store) put(mediaType string, blob []byte) ocispec.Descriptor {
	s.t.Helper()
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
	must(s.t, content.WriteBlob(inNamespace(s.t), s.db.ContentStore(), desc.Digest.String(), bytes.NewReader(blob), desc))
	return desc
}

// read returns the uncompressed content of a blob.
func (s *store) read(desc ocispec.Descriptor) []byte {
	s.t.Helper()
	blob, err := content.ReadBlob(inNamespace(s.t), s.db.ContentStore(), desc)
	must(s.t, err)
	var r io.Reader = bytes.NewReader(blob)
	switch {
	case strings.HasSuffix(desc.MediaType, "gzip"):
		r, err = gzip.NewReader(r)
	case strings.HasSuffix(desc.MediaType, "zstd"):
		var d *zstd.Decoder
		d, err = zstd.NewReader(r)
		s.t.Cleanup(d.Close)
		r = d
	}
	must(s.t, err)
	plain, err := io.ReadAll(r)
	must(s.t, err)
	return plain
}

func (s *store) collect() {
	s.t.Helper()
	_, err := s.db.GarbageCollect(s.t.Context())
	must(s.t, err)
}

func inNamespace(t *testing.T) context.Context {
	return namespaces.WithNamespace(t.Context(), testNamespace)
}

func tarOf(t *testing.T, entries ...testimage.Entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	must(t, testimage.Layer(entries).Tar(&buf))
	return buf.Bytes()
}

func gzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, err := w.Write(data)
	must(t, err)
	must(t, w.Close())
	return buf.Bytes()
}

func zstded(t *testing.T, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	must(t, err)
	defer func() { must(t, w.Close()) }()
	return w.EncodeAll(data, nil)
}

// names lists the entries of a tar, sorted.
func names(t *testing.T, data []byte) []string {
	t.Helper()
	var all []string
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if err == io.EOF {
			slices.Sort(all)
			return all
		}
		must(t, err)
		all = append(all, strings.TrimSuffix(h.Name, "/"))
	}
}

// tree lists what is below dir as a reader sees it: "name" or "name=content".
func tree(t *testing.T, dir string) []string {
	t.Helper()
	all := []string{}
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err == nil && d.Type().IsRegular() {
			var data []byte
			data, err = os.ReadFile(path)
			name += "=" + string(data)
		}
		all = append(all, name)
		return err
	}))
	return all
}

// view is the tree that mounts show.
func view(t *testing.T, mounts []mount.Mount) (all []string) {
	t.Helper()
	must(t, mount.WithTempMount(t.Context(), mounts, func(root string) error {
		all = tree(t, root)
		return nil
	}))
	return all
}

func mkdirs(t *testing.T, dir string, names ...string) []string {
	t.Helper()
	var paths []string
	for _, name := range names {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(path, 0o755))
		paths = append(paths, path)
	}
	return paths
}

func write(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

func overlayMount(options ...string) []mount.Mount {
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: options}}
}

func bindMount(source string, options ...string) []mount.Mount {
	return []mount.Mount{{Type: "bind", Source: source, Options: append(options, "rbind")}}
}

// directoryStaging has one directory, staged for a bind mount of it.
type directoryStaging struct {
	dir      string
	sealed   []ocispec.Descriptor
	results  []archive.Result
	released int
	sealErr  error
}

func (s *directoryStaging) Stage(_ context.Context, mounts []mount.Mount, _ ocispec.Descriptor) (diff.Stage, error) {
	if len(mounts) != 1 || mounts[0].Source != s.dir {
		return nil, errNotStaged
	}
	f, err := os.Open(s.dir)
	return &directoryStage{directoryStaging: s, file: f}, err
}

type directoryStage struct {
	*directoryStaging
	file *os.File
}

func (s *directoryStage) Dir() *os.File            { return s.file }
func (s *directoryStage) MayAdopt() bool           { return false }
func (s *directoryStage) Options() archive.Options { return archive.Options{} }

func (s *directoryStage) Adopt(context.Context) (archive.Result, bool, error) {
	return archive.Result{}, false, nil
}

func (s *directoryStage) Seal(_ context.Context, desc ocispec.Descriptor, result archive.Result) error {
	s.sealed, s.results = append(s.sealed, desc), append(s.results, result)
	return s.sealErr
}

func (s *directoryStage) Release() error {
	s.released++
	return s.file.Close()
}

// checkTempMounts fails the test if it leaves a mount or its directory behind.
func checkTempMounts(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	must(t, mount.SetTempMountLocation(dir))
	testutil.CheckNoMounts(t, dir)
	t.Cleanup(func() {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("directories of temporary mounts were left: %v, %v", left, err)
		}
	})
}

// checkGoroutines fails the test if it ends with more goroutines than now.
func checkGoroutines(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				stacks := make([]byte, 1<<20)
				t.Fatalf("goroutines were left:\n%s", stacks[:runtime.Stack(stacks, true)])
			}
		}
	})
}

func expect[T any](t *testing.T, what string, got, want []T, equal func(a, b []T) bool) {
	t.Helper()
	if !equal(got, want) {
		t.Errorf("%s: %v\nwant %v", what, got, want)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// deleting does something between the opening of the blob and its reading.
type deleting struct {
	*directoryStaging
	do func()
}

func (d deleting) Stage(ctx context.Context, mounts []mount.Mount, blob ocispec.Descriptor) (diff.Stage, error) {
	d.do()
	return d.directoryStaging.Stage(ctx, mounts, blob)
}

// failing is a content store whose disk is full.
type failing struct{ content.Store }

func (f failing) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	w, err := f.Store.Writer(ctx, opts...)
	return failingWriter{w}, err
}

type failingWriter struct{ content.Writer }

func (failingWriter) Write([]byte) (int, error) { return 0, unix.ENOSPC }
