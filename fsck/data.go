// SPDX-License-Identifier: Apache-2.0

package fsck

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/layerindex"
	"github.com/strata-snapshotter/strata/layerstore"
)

// dataCodes are the codes of what is wrong with entries of a layer.
var dataCodes = map[layerindex.Kind]Code{
	layerindex.Missing:    CodeDataMissing,
	layerindex.Unexpected: CodeDataUnexpected,
	layerindex.OtherType:  CodeDataType,
	layerindex.Mode:       CodeDataMode,
	layerindex.Owner:      CodeDataOwner,
	layerindex.Size:       CodeDataSize,
	layerindex.Time:       CodeDataTime,
	layerindex.Attributes: CodeDataXattr,
	layerindex.LinkTarget: CodeDataLink,
	layerindex.Content:    CodeDataContent,
}

// layerData holds the files of layer n against its index.
func (c *checker) layerData(ctx context.Context, n uint64, m layerstore.Manifest) error {
	if !c.opts.Data || m.Format == layerstore.FormatExternal {
		return nil
	}
	found := layerindex.Problems{}
	_, err := c.dir.VerifyLayer(ctx, n, layerindex.Options{Pace: c.opts.Pace}, found.Add)
	for _, kind := range layerindex.Kinds() {
		if p := found[kind]; p != nil {
			c.aboutLayer(dataCodes[kind], n, fmt.Sprintf("layer %d: %s", n, p))
		}
	}
	switch {
	case errdefs.IsNotFound(err):
		c.aboutLayer(CodeIndexAbsent, n, fmt.Sprintf("layer %d has no index: there is nothing to hold its files against", n))
		return nil
	case errdefs.IsDataLoss(err), errdefs.IsFailedPrecondition(err):
		c.aboutLayer(CodeIndexDamaged, n, fmt.Sprintf("layer %d: %v", n, err))
		return nil
	}
	return err
}
