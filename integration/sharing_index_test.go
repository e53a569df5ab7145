// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/strata-snapshotter/strata/layerindex"
	"github.com/strata-snapshotter/strata/metadata"
)

// index holds a layer against its index, which every shared one has.
func (c *storeCheck) index(l metadata.Layer) {
	at := filepath.Join(c.root, "layers", strconv.FormatUint(l.Number, 10))
	index, err := os.Open(filepath.Join(at, "index"))
	if errors.Is(err, fs.ErrNotExist) && l.DiffID == "" {
		return
	}
	if err != nil {
		c.problem("layer %d: %w", l.Number, err)
		return
	}
	defer index.Close() //nolint:errcheck // it was not written to
	dir, err := os.Open(filepath.Join(at, "fs"))
	if err != nil {
		c.problem("layer %d: %w", l.Number, err)
		return
	}
	defer dir.Close() //nolint:errcheck // it was not written to
	problems := layerindex.Problems{}
	if _, err := layerindex.Verify(context.Background(), dir, index, layerindex.Options{}, problems.Add); err != nil || len(problems) > 0 {
		c.problem("layer %d is not what was extracted: %s (%w)", l.Number, problems, err)
	}
}
