// SPDX-License-Identifier: Apache-2.0

package extstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/strata-snapshotter/strata/overlayutil"
	"golang.org/x/sys/unix"
)

// Options say which stores are used, and how.
type Options struct {
	// Paths of the stores. The first that has a layer is the one it is taken
	// from. They need not exist.
	Paths []string
	// Verify is VerifyFull if empty.
	Verify Verify
	// Xattrs is the namespace that layers must have overlay's marks in; Trusted
	// if empty.
	Xattrs overlayutil.XattrNamespace
	// Warn, if set, is called once for each store, or layer, and reason that makes
	// it unusable.
	Warn func(text string)
}

// Set is additional stores in their order. All methods may be called
// concurrently.
type Set struct {
	paths  []string
	verify Verify
	ns     overlayutil.XattrNamespace
	warn   func(string)

	mu            sync.Mutex
	verdicts      map[verdictKey]*verdict
	warned        map[warnKey]bool
	skipped       map[Reason]uint64
	found, missed uint64
}

// Open returns the stores of opts. Nothing is read before a layer is looked up:
// a store may appear later, or go.
//
// ErrInvalidArgument: a path is not absolute, or Verify or Xattrs are unknown.
func Open(opts Options) (*Set, error) {
	verify, err := ParseVerify(string(opts.Verify))
	if err != nil {
		return nil, err
	}
	if opts.Xattrs == "" {
		opts.Xattrs = overlayutil.Trusted
	}
	if namespaces[namespaceName(opts.Xattrs)] == "" {
		return nil, fmt.Errorf("attribute namespace %q is not known: %w", opts.Xattrs, errdefs.ErrInvalidArgument)
	}
	s := &Set{
		verify: verify, ns: opts.Xattrs, warn: opts.Warn,
		verdicts: map[verdictKey]*verdict{}, warned: map[warnKey]bool{}, skipped: map[Reason]uint64{},
	}
	for _, path := range opts.Paths {
		if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
			return nil, fmt.Errorf("additional store %q is not an absolute path: %w", path, errdefs.ErrInvalidArgument)
		}
		s.paths = append(s.paths, filepath.Clean(path))
	}
	return s, nil
}

// Lookup returns the layer of the first store that has it, complete and as it
// was recorded. The caller closes it.
//
// ErrNotFound: no store has it that could be used. ErrInvalidArgument: diffID is
// no digest. Otherwise only ctx ends it.
func (s *Set) Lookup(ctx context.Context, diffID digest.Digest) (*Layer, error) {
	if err := validate("diffID", diffID); err != nil {
		return nil, err
	}
	for _, path := range s.paths {
		layer, err := s.lookIn(ctx, path, diffID)
		if err != nil {
			return nil, err
		}
		if layer != nil {
			s.count(&s.found)
			return layer, nil
		}
	}
	s.count(&s.missed)
	return nil, fmt.Errorf("layer %s in additional stores: %w", diffID, errdefs.ErrNotFound)
}

// LookupBlob is Lookup for the layer that a blob, by the digest of its possibly
// compressed bytes, is known to unpack to.
func (s *Set) LookupBlob(ctx context.Context, blob digest.Digest) (*Layer, error) {
	if err := validate("blob", blob); err != nil {
		return nil, err
	}
	for _, path := range s.paths {
		diffID, ok := s.diffIDOf(path, blob)
		if !ok {
			continue
		}
		layer, err := s.lookIn(ctx, path, diffID)
		if err != nil {
			return nil, err
		}
		if layer != nil {
			s.count(&s.found)
			return layer, nil
		}
	}
	s.count(&s.missed)
	return nil, fmt.Errorf("blob %s in additional stores: %w", blob, errdefs.ErrNotFound)
}

func (s *Set) count(counter *uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*counter++
}

// lookIn returns the layer of one store, or nil. Its error is that of ctx.
func (s *Set) lookIn(ctx context.Context, path string, diffID digest.Digest) (*Layer, error) {
	store, ok := s.openStore(path)
	if !ok {
		return nil, nil
	}
	c, err := s.find(ctx, store, path, diffID)
	// Descriptors of directories that were only read: nothing is lost.
	err = unreadable(errors.Join(err, store.Close()))
	var p *problem
	switch {
	case errors.As(err, &p):
		s.skip(path, diffID, err)
		return nil, nil
	case err != nil:
		return nil, err
	case c == nil:
		return nil, nil
	}
	s.fine(path, diffID)
	layer := c.manifest.layer()
	layer.Dir, layer.Store, layer.Path = c.fs, path, layerPath(diffID)+"/"+fsName
	return &layer, nil
}

// openStore opens the directory of a store. Its path is the administrator's and
// may have links in it.
func (s *Set) openStore(path string) (*os.File, bool) {
	store, err := openStore(path)
	if err != nil {
		s.skip(path, "", err)
		return nil, false
	}
	s.fine(path, "")
	return store, true
}

func openStore(path string) (*os.File, error) {
	fd, err := retry(func() (int, error) { return unix.Open(path, dirFlags, 0) })
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, &problem{ReasonAbsent, fmt.Errorf("it is not there: %w", err)}
	case errors.Is(err, unix.ENOTDIR):
		return nil, &problem{ReasonFormat, fmt.Errorf("it is not a directory: %w", err)}
	case err != nil:
		return nil, unreadable(err)
	}
	store := os.NewFile(uintptr(fd), path)
	var info storeInfo
	_, err = readJSON(store, storeFile, &info)
	var bad *damage
	switch {
	case errors.Is(err, unix.ENOENT):
		err = &problem{ReasonFormat, fmt.Errorf("it has no %s: it is no store, or its file system is not mounted", storeFile)}
	case errors.As(err, &bad):
		err = &problem{ReasonFormat, err}
	case err == nil:
		if err = info.check(); err != nil {
			err = &problem{ReasonFormat, fmt.Errorf("%s: %w", storeFile, err)}
		}
	}
	if err != nil {
		return nil, errors.Join(unreadable(err), store.Close())
	}
	return store, nil
}

// diffIDOf reads what a store says of a blob.
func (s *Set) diffIDOf(path string, blob digest.Digest) (diffID digest.Digest, ok bool) {
	store, ok := s.openStore(path)
	if !ok {
		return "", false
	}
	diffID, err := readBlobNote(store, blob)
	err = errors.Join(err, store.Close())
	if err != nil {
		s.skip(path, blob, &problem{ReasonDamaged, fmt.Errorf("the note on the blob can't be used: %w", err)})
	}
	return diffID, err == nil && diffID != ""
}

// readBlobNote returns "" if there is none.
func readBlobNote(store *os.File, blob digest.Digest) (digest.Digest, error) {
	b, _, err := readFile(store, blobsDir+"/"+digestPath(blob))
	if errors.Is(err, unix.ENOENT) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	diffID := digest.Digest(strings.TrimSpace(string(b)))
	return diffID, validate("diffID", diffID)
}
