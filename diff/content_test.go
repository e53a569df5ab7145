// SPDX-License-Identifier: Apache-2.0

package diff_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/diff"
	"github.com/strata-snapshotter/strata/internal/testimage"
)

// counting is a content store that counts what is read through it.
type counting struct {
	content.Store
	reads int
}

func (c *counting) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	c.reads++
	return c.Store.ReaderAt(ctx, desc)
}

// TestContentDirectory says when the directory is read and when the API is asked.
func TestContentDirectory(t *testing.T) {
	errNoSuch := errors.New("no such directory")
	for name, test := range map[string]struct {
		change func(t *testing.T, path string)
		root   func(string) (string, error)
		api    bool
		want   error
	}{
		"found":          {},
		"unknown":        {root: func(string) (string, error) { return "", errNoSuch }, api: true},
		"somewhere else": {root: func(root string) (string, error) { return root + "-other", nil }, api: true},
		"a file":         {root: func(string) (string, error) { return os.DevNull, nil }, api: true},
		"through a link": {root: func(root string) (string, error) { return root + "-link", os.Symlink(root, root+"-link") }},
		"blob is a link": {change: replaceByLink, api: true},
		"blob is too short": {
			change: func(t *testing.T, path string) { must(t, os.Truncate(path, 100)) },
			want:   errdefs.ErrDataLoss,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			desc := s.put(ociTar, tarOf(t, testimage.File("file", "content")))
			path := filepath.Join(s.root, "blobs", "sha256", desc.Digest.Encoded())
			if test.change != nil {
				test.change(t, path)
			}
			services := s.services()
			api := &counting{Store: services.Content}
			services.Content = api
			if test.root != nil {
				services.Root = func(context.Context) (string, error) { return test.root(s.root) }
			}
			dir := t.TempDir()
			_, err := diff.New(diff.Config{Services: services}).Apply(inNamespace(t), desc, bindMount(dir, "rw"))
			if !errors.Is(err, test.want) || err != nil && test.want == nil {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if test.api != (api.reads > 0) {
				t.Errorf("%d reads through the API", api.reads)
			}
			if err == nil {
				expect(t, "the directory", tree(t, dir), []string{"file=content"}, slices.Equal)
			}
		})
	}
}

func replaceByLink(t *testing.T, path string) {
	must(t, os.Rename(path, path+"-moved"))
	must(t, os.Symlink(path+"-moved", path))
}

// TestFifoInPlaceOfBlob must not wait for somebody to write into the fifo.
func TestFifoInPlaceOfBlob(t *testing.T) {
	s := newStore(t)
	desc := s.put(ociTar, tarOf(t, testimage.File("file", "content")))
	root := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(root, "blobs", "sha256"), 0o755))
	must(t, unix.Mkfifo(filepath.Join(root, "blobs", "sha256", desc.Digest.Encoded()), 0o600))
	services := s.services()
	services.Root = func(context.Context) (string, error) { return root, nil }
	_, err := diff.New(diff.Config{Services: services}).Apply(inNamespace(t), desc, bindMount(t.TempDir(), "rw"))
	must(t, err)
}

func TestWrongDescriptor(t *testing.T) {
	s := newStore(t)
	good := s.put(ociTar, tarOf(t, testimage.File("file", "content")))
	for name, test := range map[string]struct {
		change func(*ocispec.Descriptor)
		is     func(error) bool
	}{
		"size":              {func(d *ocispec.Descriptor) { d.Size++ }, errdefs.IsInvalidArgument},
		"no size":           {func(d *ocispec.Descriptor) { d.Size = 0 }, errdefs.IsInvalidArgument},
		"unknown digest":    {func(d *ocispec.Descriptor) { d.Digest = good.Digest[:len(good.Digest)-4] + "0000" }, errdefs.IsNotFound},
		"digest with path":  {func(d *ocispec.Descriptor) { d.Digest = "sha256:../../../../etc/passwd" }, errdefs.IsInvalidArgument},
		"unknown algorithm": {func(d *ocispec.Descriptor) { d.Digest = "../x:00" }, errdefs.IsInvalidArgument},
		"no digest":         {func(d *ocispec.Descriptor) { d.Digest = "" }, errdefs.IsInvalidArgument},
	} {
		desc := good
		test.change(&desc)
		if _, err := diff.New(diff.Config{Services: s.services()}).Apply(inNamespace(t), desc, bindMount(t.TempDir(), "rw")); !test.is(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBlobDeletedWhileRead: an open blob is read to its end, whoever deletes it.
func TestBlobDeletedWhileRead(t *testing.T) {
	s := newStore(t)
	desc := s.put(ociTar, tarOf(t, testimage.File("file", string(make([]byte, 3<<20)))))
	services := s.services()
	services.Root = func(context.Context) (string, error) { return s.root, nil }
	found := &answering{Store: services.Content, answered: make(chan struct{})}
	services.Content = found
	staging := &directoryStaging{dir: t.TempDir()}
	d := diff.New(diff.Config{Services: services, Staging: deleting{staging, func() { <-found.answered; s.collect() }}})
	_, err := d.Apply(inNamespace(t), desc, bindMount(staging.dir, "rw"))
	must(t, err)
	if _, err := s.db.ContentStore().Info(inNamespace(t), desc.Digest); !errdefs.IsNotFound(err) {
		t.Errorf("the blob was not deleted in between: %v", err)
	}
}

// answering says when it was asked for a blob and has answered.
type answering struct {
	content.Store
	answered chan struct{}
}

func (a *answering) Info(ctx context.Context, dgst digest.Digest) (content.Info, error) {
	defer close(a.answered)
	return a.Store.Info(ctx, dgst)
}

// What a blob of another namespace holds is not kept, although it is read at once.
func TestBlobOfAnotherNamespaceIsNotKept(t *testing.T) {
	s := newStore(t)
	desc := s.put(ociTar, tarOf(t, testimage.File("file", "content")))
	services := s.services()
	services.Root = func(context.Context) (string, error) { return s.root, nil }
	staging := &directoryStaging{dir: t.TempDir()}
	d := diff.New(diff.Config{Services: services, Staging: staging})
	ctx, foreign := namespaces.WithNamespace(t.Context(), "another"), t.TempDir()
	for _, dir := range []string{staging.dir, foreign} {
		if _, err := d.Apply(ctx, desc, bindMount(dir, "rw")); !errdefs.IsNotFound(err) {
			t.Errorf("got %v", err)
		}
	}
	if len(staging.sealed) > 0 {
		t.Error("the layer was sealed")
	}
	if names, err := os.ReadDir(foreign); err != nil || len(names) > 0 {
		t.Errorf("written to a directory that nobody takes back: %v, %v", names, err)
	}
}
