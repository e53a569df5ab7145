// SPDX-License-Identifier: Apache-2.0

package diff_test

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/diff"
	"github.com/strata-snapshotter/strata/internal/faultfs"
	"github.com/strata-snapshotter/strata/internal/testimage"
)

// A disk that fails while a blob is read is no fault of the image: the error says which
// file can't be read, is of the class Internal, and nothing of the layer stays. Read again
// the layer is right.
func TestBlobCannotBeRead(t *testing.T) {
	text := strings.Repeat("0123456789abcdef", 1<<16)
	for name, pack := range map[string]func(*testing.T, []byte) ([]byte, string){
		"plain": func(_ *testing.T, b []byte) ([]byte, string) { return b, ociTar },
		"gzip": func(t *testing.T, b []byte) ([]byte, string) {
			return gzipped(t, b), ocispec.MediaTypeImageLayerGzip
		},
		"zstd": func(t *testing.T, b []byte) ([]byte, string) {
			return zstded(t, b), ocispec.MediaTypeImageLayerZstd
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			blob, mediaType := pack(t, tarOf(t, testimage.File("a", text), testimage.File("b", "b")))
			desc := s.put(mediaType, blob)
			faults := faultfs.New(t, s.root)
			services := s.services()
			services.Root = func(context.Context) (string, error) { return faults.Dir(), nil }
			staging := &directoryStaging{dir: t.TempDir()}
			d := diff.New(diff.Config{Services: services, Staging: staging})
			apply := func() error {
				_, err := d.Apply(inNamespace(t), desc, bindMount(staging.dir, "rw"))
				return err
			}
			faults.Set(faultfs.Rule{Ops: []string{faultfs.Read}, First: 1, Errno: syscall.EIO})
			err := apply()
			if !errors.Is(err, syscall.EIO) || !errdefs.IsInternal(err) || !strings.Contains(err.Error(), desc.Digest.Encoded()) {
				t.Errorf("got %v", err)
			}
			faults.Set(faultfs.Rule{})
			if len(staging.sealed) > 0 || staging.released > 1 { // 0: not even its first bytes could be read
				t.Errorf("a layer that could not be read: sealed %v, released %d times", staging.sealed, staging.released)
			}
			staging.dir = t.TempDir() // a stage of the snapshotter is emptied
			if err := apply(); err != nil {
				t.Error(err)
			}
		})
	}
}
