// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/opencontainers/go-digest"

	"github.com/strata-snapshotter/strata/internal/step"
)

// Content is what a walk over a snapshot's directory found.
type Content struct {
	Bytes  int64 // on disk: holes not, hard links once
	Inodes int64 // the directory itself included
	// Empty: no entries, and a root that looks like any other. Such a layer
	// adds nothing to a stack.
	Empty bool
	// What follows is what whoever extracted the layer found out; a walk does not.
	OpaqueRoot bool
	DiffID     digest.Digest
	Size       int64           // of the layer's stream, in bytes
	Indexed    bool            // there is an index, and it is right
	Needs      json.RawMessage // see Manifest
}

// Seal measures the directory of active snapshot n and, unless the store is
// volatile, makes all that is in it survive a power cut. It takes time in
// proportion to the number of entries and belongs in no transaction.
func (s *Store) Seal(ctx context.Context, n uint64) (c Content, err error) {
	defer func() { err = s.rootError(err) }()
	dir, err := openDir(int(s.snapshots.Fd()), name(n)+"/"+fsName)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	var files fileList
	defer step.Enter(ctx, step.Sync)()
	c, err = measure(ctx, dir, files.add)
	if err != nil {
		return c, err
	}
	attrs, err := s.readAttrs(dir)
	if err != nil {
		return c, err
	}
	c.Empty = c.Empty && attrs.IsDefault()
	return c, s.sync(func() error { return files.sync(dir, s.inOrder) })
}

// Measure measures the directory of active snapshot n as it is at the moment:
// containers may be writing to it.
func (s *Store) Measure(ctx context.Context, n uint64) (c Content, err error) {
	defer func() { err = s.rootError(err) }()
	dir, err := openDir(int(s.snapshots.Fd()), name(n)+"/"+fsName)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return measure(ctx, dir, func(string) {})
}
