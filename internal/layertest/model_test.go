// SPDX-License-Identifier: Apache-2.0

package layertest

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/archive"
	"pgregory.net/rapid"

	"github.com/strata-snapshotter/strata/internal/testutil"
)

// TestModelAgreesWithContainerd holds the model against containerd's applier on
// one plain directory, wherever the two should agree.
func TestModelAgreesWithContainerd(t *testing.T) {
	testutil.RequireRoot(t)
	base := testutil.Tmpfs(t)
	compared := 0
	rapid.Check(t, func(t *rapid.T) {
		image := Image().Draw(t, "image")
		truth, truthErr := Truth(image)
		dir, err := os.MkdirTemp(base, "")
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}()
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		err = applyAll(dir, image)
		if len(truth.Notes) > 0 {
			return
		}
		if (err == nil) != (truthErr == nil) {
			t.Fatalf("the model says %v, containerd %v", truthErr, err)
		}
		if err != nil {
			return
		}
		got, err := Dump(dir)
		if err != nil {
			t.Fatal(err)
		}
		if diffs := truth.Tree().Diff(got); len(diffs) > 0 {
			t.Fatalf("the model against containerd:\n%s", strings.Join(diffs, "\n"))
		}
		compared++
	})
	if compared == 0 {
		t.Fatal("no image was compared")
	}
	t.Logf("%d images compared", compared)
}

func applyAll(dir string, image []Layer) error {
	for _, layer := range image {
		blob, err := layer.Tar()
		if err != nil {
			return err
		}
		if _, err := archive.Apply(context.Background(), dir, bytes.NewReader(blob)); err != nil {
			return err
		}
	}
	return nil
}
