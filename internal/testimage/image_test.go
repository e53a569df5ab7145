// SPDX-License-Identifier: Apache-2.0

package testimage

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func names(t *testing.T, r io.Reader) []string {
	t.Helper()
	var out []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			slices.Sort(out)
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, h.Name)
	}
}

func TestLayerTar(t *testing.T) {
	layer := Layer{Dir("d"), File("d/f", "x"), Whiteout("d/g"), Whiteout("h"), Opaque("d"), Symlink("s", "d/f")}
	var buf bytes.Buffer
	if err := layer.Tar(&buf); err != nil {
		t.Fatal(err)
	}
	want := []string{".wh.h", "d/", "d/.wh..wh..opq", "d/.wh.g", "d/f", "s"}
	if got := names(t, &buf); !slices.Equal(got, want) {
		t.Errorf("entries %q, want %q", got, want)
	}
}

func TestBuildIsReproducible(t *testing.T) {
	digest := func() string {
		img, err := Build([]string{"/f"}, Layer{File("f", "x")}, Layer{})
		if err != nil {
			t.Fatal(err)
		}
		d, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return d.String()
	}
	if a, b := digest(), digest(); a != b {
		t.Errorf("two builds of the same layers differ: %s, %s", a, b)
	}
}

// An independent reader of the archive, which applies whiteouts by itself, must see
// what the image is meant to hold.
func TestArchiveReadsBack(t *testing.T) {
	img, err := Build(nil,
		Layer{Dir("d"), File("d/f", "1"), File("d/g", "1")},
		Layer{Whiteout("d/g"), File("d/h", "2")})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "image.tar")
	if err := WriteArchive(path, "example.test/a:b", img); err != nil {
		t.Fatal(err)
	}
	back, err := tarball.ImageFromPath(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	merged := mutate.Extract(back)
	defer func() { _ = merged.Close() }()
	if got, want := names(t, merged), []string{"d", "d/f", "d/h"}; !slices.Equal(got, want) {
		t.Errorf("merged view %q, want %q", got, want)
	}
}

func TestArchiveRefusesBadName(t *testing.T) {
	img, err := Build(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteArchive(filepath.Join(t.TempDir(), "x"), "UPPER CASE", img); err == nil {
		t.Error("a name that is none was taken")
	}
}
