// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/errdefs"
)

// walkBatch is how many snapshots Walk reads in one transaction.
const walkBatch = 256

// Walk calls fn for every snapshot that matches one of the filters (containerd's
// syntax, pkg/filters: kind, name, parent and labels), or for all without
// filters. It stops at fn's first error and returns it.
//
// fn runs outside of any transaction: it may take its time and may change the
// store. Each snapshot is seen at most once; one that is made or removed
// meanwhile may or may not be.
//
// ErrInvalidArgument: a filter can't be parsed.
func (s *Store) Walk(ctx context.Context, fn func(context.Context, Snapshot) error, fs ...string) error {
	filter, err := filters.ParseAll(fs...)
	if err != nil {
		return err
	}
	next := uint64(0)
	for {
		found, after, err := s.walkOnce(filter, fs, next)
		if err != nil {
			return err
		}
		for _, snapshot := range found {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := fn(ctx, snapshot); err != nil {
				return err
			}
		}
		if after == 0 {
			return nil
		}
		next = after
	}
}

// walkOnce collects matches from number next on and returns where to go on, or
// 0 at the end. Filters that the indexes can answer are done in one go: they
// name a handful of snapshots.
func (s *Store) walkOnce(filter filters.Filter, fs []string, next uint64) (found []Snapshot, after uint64, err error) {
	err = s.View(func(tx *Tx) error {
		add := func(n uint64) error {
			snapshot, err := tx.ByNumber(n)
			if errdefs.IsNotFound(err) {
				return nil
			}
			if err == nil && filter.Match(adapt(snapshot.Info)) {
				found = append(found, snapshot)
			}
			return err
		}
		if numbers, ok, err := tx.candidates(fs); err != nil || ok {
			for _, n := range numbers {
				if err == nil {
					err = add(n)
				}
			}
			return err
		}
		after, err = tx.scan(next, add)
		return err
	})
	return found, after, err
}

// scan calls add for up to walkBatch snapshots from number next on.
func (tx *Tx) scan(next uint64, add func(uint64) error) (after uint64, err error) {
	c := tx.bucket(bucketSnapshots).Cursor()
	seen := 0
	for k, _ := c.Seek(numberKey(next)); k != nil; k, _ = c.Next() {
		n := numberOf(k)
		if seen == walkBatch {
			return n, nil
		}
		seen++
		if err := add(n); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func adapt(info snapshots.Info) filters.Adaptor {
	return filters.AdapterFunc(func(path []string) (string, bool) {
		if len(path) == 0 {
			return "", false
		}
		switch path[0] {
		case "kind":
			return strings.ToLower(info.Kind.String()), info.Kind != snapshots.KindUnknown
		case "name":
			return info.Name, true
		case "parent":
			return info.Parent, true
		case "labels":
			v, ok := info.Labels[strings.Join(path[1:], ".")]
			return v, ok
		}
		return "", false
	})
}
