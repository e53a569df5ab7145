// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// Layers lists what a mount of a child names, and what it leaves out besides.
func TestLayersOfAChain(t *testing.T) {
	s := open(t, Config{})
	commitLayer(t, s, "one", "")
	prepare(t, s, "nothing-tmp", "one")
	mustCommit(t, s, "nothing", "nothing-tmp")
	commitLayer(t, s, "two", "nothing")
	layers, err := s.Layers(ctx, "two")
	if err != nil || len(layers) != 3 || !layers[1].Empty || layers[0].Usage.Size == 0 {
		t.Fatalf("layers %+v, %v, want 3 with the second empty", layers, err)
	}
	stack := s.Stack(layers)
	if want := []string{layers[0].Path, layers[2].Path}; !slices.Equal(stack, want) {
		t.Errorf("stack %q, want %q", stack, want)
	}
	mounts := prepare(t, s, "child", "two")
	if options := strings.Join(mounts[0].Options, ","); !strings.Contains(options, "lowerdir="+strings.Join(stack, ":")) {
		t.Errorf("a child is mounted with %s, the stack is %q", options, stack)
	}
	if stack := s.Stack(layers[1:2]); !slices.Equal(stack, []string{s.store.EmptyPath()}) {
		t.Errorf("stack of nothing: %q", stack)
	}
	if _, err := s.Layers(ctx, "child"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("layers of an active snapshot: %v, want ErrFailedPrecondition", err)
	}
	if _, err := s.Layers(ctx, "none"); !errdefs.IsNotFound(err) {
		t.Errorf("layers of nothing: %v, want ErrNotFound", err)
	}
	aside := filepath.Join(t.TempDir(), "aside")
	if err := os.Rename(layers[2].Path, aside); err != nil {
		t.Fatal(err)
	}
	_, err = s.Layers(ctx, "two")
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), layers[2].Path) {
		t.Errorf("layers with one gone: %v, want ErrUnavailable that names it", err)
	}
	if err := os.Rename(aside, layers[2].Path); err != nil {
		t.Fatal(err)
	}
}
