// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// TestRandomImagesOverrideStat is TestRandomImages as an ordinary user.
func TestRandomImagesOverrideStat(t *testing.T) {
	if !testutil.AsUser(t) {
		return
	}
	for _, order := range plainOrders {
		t.Run(order.name, func(t *testing.T) {
			h := newPlainHouse(t)
			rapid.Check(t, func(t *rapid.T) { checkPlainImage(t, h, order.name, order.chain) })
		})
	}
}

func checkPlainImage(t *rapid.T, h *plainHouse, name string, order func(*plainHouse, [][]byte) (chain, error)) {
	image := layertest.Image().Draw(t, "image")
	blobs, err := tars(image)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := h.clear(); err != nil {
			t.Fatal(err)
		}
	}()
	truth, truthErr := layertest.Truth(image)
	if truth.Open || (name == "onto" && len(truth.Notes) > 0) {
		return
	}
	stack, err := order(h, blobs)
	if sameRefusal(t, truthErr, err) {
		return
	}
	got, err := h.tree(stack)
	if err != nil {
		t.Fatal(err)
	}
	if diffs := truth.Tree().UnknownOwners().Diff(got); len(diffs) > 0 {
		t.Fatalf("the wrong tree:\n%s", strings.Join(diffs, "\n"))
	}
}
