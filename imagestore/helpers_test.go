// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/log"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/internal/testimage"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

func TestMain(m *testing.M) {
	_ = log.SetLevel("error") // what the store says on its way is not what is tested
	os.Exit(m.Run())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newRoot is a place for a store, which is checked when the test ends.
func newRoot(t testing.TB) string {
	t.Helper()
	testutil.RequireRoot(t)
	root := filepath.Join(testutil.Tmpfs(t), "images")
	t.Cleanup(func() {
		checkRoot(t, root)
		// containerd's content store leaves a file to the finalizer when it asks for
		// fs-verity, and the tmpfs can't be unmounted before.
		runtime.GC()
		runtime.GC()
	})
	return root
}

// open opens a store, which is closed when the test ends.
func open(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(context.Background(), o)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func newStore(t testing.TB) *Store {
	t.Helper()
	return open(t, Options{Root: newRoot(t)})
}

// checkRoot runs fsck on the layers of a closed store.
func checkRoot(t testing.TB, root string) {
	t.Helper()
	report, err := fsck.Check(context.Background(), fsck.Options{Root: filepath.Join(root, storeName), Usage: true})
	must(t, err)
	for _, f := range report.Findings {
		if f.Code == fsck.CodeTrashLeft {
			continue // deleting ends with the process, and goes on with the next
		}
		t.Errorf("fsck: %+v", f)
	}
}

// sample is an image that has every kind of change.
func sample(t testing.TB) v1.Image {
	t.Helper()
	layers, err := testimage.Sample("/bin/sh") // any file: nobody runs it
	must(t, err)
	return build(t, layers...)
}

func build(t testing.TB, layers ...testimage.Layer) v1.Image {
	t.Helper()
	img, err := testimage.Build([]string{"/bin/sh"}, layers...)
	must(t, err)
	return img
}

// heavy is a layer with one file that does not become smaller.
func heavy(name string, size int) testimage.Layer {
	var seed [32]byte
	copy(seed[:], name)
	content := make([]byte, size)
	_, _ = rand.NewChaCha8(seed).Read(content)
	return testimage.Layer{testimage.Program(name, content)}
}

// pull pulls, and expects it to work.
func pull(t testing.TB, s *Store, o PullOptions) Image {
	t.Helper()
	image, err := tryPull(s, o)
	must(t, err)
	return image
}

func tryPull(s *Store, o PullOptions) (Image, error) {
	ctx := context.Background()
	if o.Resolver == nil {
		o.Resolver = NewResolver(ctx, nil)
	}
	return s.Pull(ctx, o)
}

// mounted mounts an image and returns where.
func mounted(t testing.TB, s *Store, image Image) string {
	t.Helper()
	ctx, done, err := s.Lease(context.Background())
	must(t, err)
	key := "look-" + strings.ReplaceAll(t.Name(), "/", "-")
	mounts, err := s.Snapshotter().View(ctx, key, image.ChainID.String())
	must(t, err)
	dir := t.TempDir()
	must(t, mount.All(mounts, dir))
	t.Cleanup(func() {
		must(t, mount.UnmountAll(dir, 0))
		err := s.Snapshotter().Remove(ctx, key)
		done(&err)
		must(t, err)
	})
	return dir
}

func checkFile(t testing.TB, dir, name, want string) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(dir, name))
	if want == "" {
		if err == nil {
			t.Errorf("%s is there", name)
		}
		return
	}
	if err != nil || !bytes.Equal(got, []byte(want)) {
		t.Errorf("%s: %q, %v, want %q", name, got, err, want)
	}
}

// checkSample looks at what a mounted sample shows.
func checkSample(t testing.TB, dir string) {
	t.Helper()
	for name, want := range map[string]string{
		"etc/greeting": testimage.Greeting, "data/keep": "kept\n", "data/added": "added\n", "srv/owned": "owned\n",
		"data/replaced/after": "after\n", "data/replaced/before": "", "data/gone": "", "data/old": "",
	} {
		checkFile(t, dir, name, want)
	}
}

// count counts snapshots of a kind.
func count(t testing.TB, s *Store, kind snapshots.Kind) (n int) {
	t.Helper()
	must(t, s.Snapshotter().Walk(s.Context(context.Background()), func(_ context.Context, info snapshots.Info) error {
		if info.Kind == kind {
			n++
		}
		return nil
	}))
	return n
}

// events collects what a pull tells.
type events struct {
	mu   sync.Mutex
	list []Event
}

func (e *events) tell(event Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, event)
}

// count counts the layers that a step was told of.
func (e *events) count(step Step) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	layers := map[int]bool{}
	for _, event := range e.list {
		if event.Step == step {
			layers[event.Index] = true
		}
	}
	return len(layers)
}
