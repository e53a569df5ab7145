// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testimage"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// plainStore is the store of an ordinary user, checked at the end.
func plainStore(t *testing.T) *Store {
	t.Helper()
	root := filepath.Join(t.TempDir(), "images")
	options := config.Default().Snapshotter
	options.Ownership = config.OwnershipOverrideStat
	if made, err := OwnershipOf(root); err != nil || made != "" {
		t.Errorf("before there is one, a store is of kind %q, %v", made, err)
	}
	t.Cleanup(func() { checkRoot(t, root) })
	testutil.CheckNoMounts(t, root)
	s := open(t, Options{Root: root, Snapshotter: &options})
	if made, err := OwnershipOf(root); err != nil || made != config.OwnershipOverrideStat {
		t.Errorf("the store is of kind %q, %v", made, err)
	}
	return s
}

// TestOverrideCompare compares what a container of an ordinary user changed with its
// image: nothing is mounted for it.
func TestOverrideCompare(t *testing.T) {
	if !testutil.AsUser(t) {
		return
	}
	s := plainStore(t)
	ctx := s.Context(context.Background())
	image := loadOne(t, s, LoadOptions{Path: dockerArchive(t, build(t,
		testimage.Layer{testimage.Dir("etc"), testimage.File("etc/motd", "welcome\n"), testimage.File("etc/gone", "x")},
		testimage.Layer{testimage.File("etc/issue", "issue\n").Owner(7, 8)},
	))})
	tree, err := layertest.DumpOverride(mustLayers(t, s, image.Name)...)
	must(t, err)
	if got := tree["/etc/issue"]; !strings.HasPrefix(got, `file["issue\n"] 0644 7:8 `) {
		t.Errorf("/etc/issue is %s", got)
	}
	lower, err := s.Snapshotter().View(ctx, "lower", image.ChainID.String())
	must(t, err)
	upper, err := s.Snapshotter().Prepare(ctx, "upper", image.ChainID.String())
	must(t, err)
	changeUpper(t, upper)
	desc, err := s.differ.Compare(ctx, lower, upper, diff.WithMediaType(ocispec.MediaTypeImageLayer))
	must(t, err)
	blob, err := content.ReadBlob(ctx, s.Content(), desc)
	must(t, err)
	want := []string{
		"etc/ 0755 0:0", "etc/.wh.gone 0000 0:0", "etc/motd 4711 3:4",
		fmt.Sprintf("etc/new 0600 %d:%d", os.Geteuid(), os.Getegid()),
	}
	if got := entries(t, blob); !slices.Equal(got, want) {
		t.Errorf("the layer has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, key := range []string{"lower", "upper"} {
		must(t, s.Snapshotter().Remove(ctx, key))
	}
}

func mustLayers(t *testing.T, s *Store, ref string) []string {
	t.Helper()
	layers, err := s.Layers(context.Background(), ref)
	must(t, err)
	return layers
}

// changeUpper makes the changes that fuse-overlayfs would write for a container.
func changeUpper(t *testing.T, mounts []mount.Mount) {
	t.Helper()
	var dir string
	for _, o := range mounts[0].Options {
		if upper, ok := strings.CutPrefix(o, "upperdir="); ok {
			dir = filepath.Join(upper, "etc")
		}
	}
	attr := func(name, value string) {
		must(t, unix.Setxattr(filepath.Join(dir, name), "user.fuseoverlayfs.override_stat", []byte(value), 0))
	}
	must(t, os.Mkdir(dir, 0o755))
	attr("", "0:0:40755")
	must(t, os.WriteFile(filepath.Join(dir, "motd"), []byte("changed"), 0o644))
	attr("motd", "3:4:104711")
	must(t, os.WriteFile(filepath.Join(dir, "new"), nil, 0o600))
	must(t, unix.Mknod(filepath.Join(dir, "gone"), unix.S_IFCHR, 0))
}

func entries(t *testing.T, blob []byte) (list []string) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(blob)); ; {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		must(t, err)
		list = append(list, fmt.Sprintf("%s %04o %d:%d", e.Name, e.Mode, e.Uid, e.Gid))
	}
}

// TestOwnershipUnknown: what a newer Strata wrote is not touched.
func TestOwnershipUnknown(t *testing.T) {
	testutil.RequireRoot(t)
	root := t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, storeName), 0o700))
	must(t, os.WriteFile(filepath.Join(root, storeName, "ownership"), []byte("other\n"), 0o600))
	if _, err := Open(context.Background(), Options{Root: root}); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "other") {
		t.Errorf("opened with %v", err)
	}
}
