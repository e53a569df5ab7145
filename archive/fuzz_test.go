// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/internal/testutil"
)

// applier is Apply or ApplyOnto.
type applier func(context.Context, Source, *os.File, Options) (Result, error)

// fuzzLimits keep one run of the fuzzer short.
func fuzzLimits() Limits {
	l := DefaultLimits()
	l.Bytes, l.Entries, l.Xattrs, l.Depth = 4<<20, 1000, 4<<10, 100
	return l
}

// FuzzApply extracts whatever comes, both ways. It may be refused, with a class,
// and must leave alone what is beside the directory it goes into.
func FuzzApply(f *testing.F) {
	testutil.RequireRoot(f)
	for _, format := range []tar.Format{tar.FormatUSTAR, tar.FormatPAX, tar.FormatGNU} {
		f.Add(writeTar(f, format, sampleHeaders(false)...))
	}
	f.Add(writeTar(f, tar.FormatPAX,
		&tar.Header{Typeflag: tar.TypeSymlink, Name: "out", Linkname: "../.."},
		&tar.Header{Typeflag: tar.TypeReg, Name: "out/canary", Size: 3},
		&tar.Header{Typeflag: tar.TypeLink, Name: "hard", Linkname: "../canary"},
		&tar.Header{Typeflag: tar.TypeReg, Name: "d/.wh.x"},
		&tar.Header{Typeflag: tar.TypeReg, Name: "d/.wh..wh..opq"},
		&tar.Header{Typeflag: tar.TypeDir, Name: "d/x/"},
		&tar.Header{Typeflag: tar.TypeReg, Name: ".wh.d"},
	))
	base := testutil.Tmpfs(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		for name, apply := range map[string]applier{"alone": Apply, "onto": ApplyOnto} {
			top, err := os.MkdirTemp(base, name)
			if err != nil {
				t.Fatal(err)
			}
			fuzzOnce(t, top, data, apply)
			if err := os.RemoveAll(top); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func fuzzOnce(t *testing.T, top string, data []byte, apply applier) {
	canary := filepath.Join(top, "canary")
	if err := os.WriteFile(canary, []byte("alive"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(top, "layer")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close() //nolint:errcheck // a directory opened for reading
	_, err = apply(t.Context(), FromReader(bytes.NewReader(data)), dir, Options{Limits: fuzzLimits()})
	if err != nil && !errdefs.IsInvalidArgument(err) && !errdefs.IsResourceExhausted(err) {
		t.Errorf("%v", err)
	}
	entries, err := os.ReadDir(top)
	if err != nil || len(entries) != 2 {
		t.Errorf("beside the layer: %v, %v", entries, err)
	}
	if b, err := os.ReadFile(canary); err != nil || string(b) != "alive" {
		t.Errorf("the canary: %q, %v", b, err)
	}
}
