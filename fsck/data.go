// SPDX-License-Identifier: Apache-2.0

package fsck

import (
	"context"
	"fmt"
	"strings"

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

// dataKinds are the keys of dataCodes, in the order in which findings come.
var dataKinds = []layerindex.Kind{
	layerindex.Missing, layerindex.Unexpected, layerindex.OtherType, layerindex.Size, layerindex.Content, layerindex.LinkTarget,
	layerindex.Mode, layerindex.Owner, layerindex.Attributes, layerindex.Time,
}

// layerData holds the files of layer n against its index.
func (c *checker) layerData(ctx context.Context, n uint64, m layerstore.Manifest) error {
	if !c.opts.Data || m.Format == layerstore.FormatExternal {
		return nil
	}
	found := Problems{}
	_, err := c.dir.VerifyLayer(ctx, n, layerindex.Options{Pace: c.opts.Pace}, found.Add)
	for _, kind := range dataKinds {
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

// Problems are what was found in one layer, by kind. Its memory does not grow with how
// many there are.
type Problems map[layerindex.Kind]*Problem

// Problem is what is wrong with entries of a layer in one way.
type Problem struct {
	// Count is how many entries.
	Count int64
	// First are the first few of them.
	First []layerindex.Problem
}

// firstProblems is how many entries are named.
const firstProblems = 3

// Add counts p. It returns nil: it is a report for layerindex.Verify.
func (ps Problems) Add(p layerindex.Problem) error {
	of := ps[p.Kind]
	if of == nil {
		of = &Problem{}
		ps[p.Kind] = of
	}
	of.Count++
	if len(of.First) < firstProblems {
		of.First = append(of.First, p)
	}
	return nil
}

// String names the first entries.
func (p *Problem) String() string {
	var b strings.Builder
	for i, one := range p.First {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%q: %s", "/"+one.Path, one.Text)
	}
	if more := p.Count - int64(len(p.First)); more > 0 {
		fmt.Fprintf(&b, "; and %d more", more)
	}
	return b.String()
}

// String is the problems of all kinds, for a log.
func (ps Problems) String() string {
	var parts []string
	for _, kind := range dataKinds {
		if p := ps[kind]; p != nil {
			parts = append(parts, fmt.Sprintf("%s: %s", dataCodes[kind], p))
		}
	}
	return strings.Join(parts, "; ")
}
