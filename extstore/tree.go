// SPDX-License-Identifier: Apache-2.0

package extstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"
	"runtime"

	"github.com/opencontainers/go-digest"
	"github.com/strata-snapshotter/strata/overlayutil"
	"golang.org/x/sync/errgroup"
)

// A tree is listed without or with the contents of its files.
type depth int

const (
	metadataOnly depth = iota
	withContents
)

// list calls emit with the records of a tree in the order of the index.
func list(ctx context.Context, root *os.File, ns overlayutil.XattrNamespace, d depth, emit func(record) error) error {
	r := newRecorder(ns)
	if d == withContents {
		return listContents(ctx, root, r, emit)
	}
	return walk(ctx, root, func(e *entry) error {
		rec, _, err := r.record(e)
		if err != nil {
			return err
		}
		return emit(rec)
	})
}

const (
	// maxPending is how many files are open at a time, waiting to be hashed.
	maxPending = 64
	maxHashers = 4
	hashPiece  = 256 << 10
)

// pending is a record whose content is being hashed.
type pending struct {
	record
	file *os.File // nil: there is nothing to hash
	done chan struct{}
	err  error
}

// listContents hashes several files at a time: one goroutine walks, a few hash,
// one emits in order.
func listContents(ctx context.Context, root *os.File, r *recorder, emit func(record) error) error {
	g, ctx := errgroup.WithContext(ctx)
	work := make(chan *pending, maxPending)
	order := make(chan *pending, maxPending)
	g.Go(func() error {
		defer close(work)
		defer close(order)
		return walk(ctx, root, func(e *entry) error { return enqueue(ctx, e, r, work, order) })
	})
	for range min(runtime.GOMAXPROCS(0), maxHashers) {
		g.Go(func() error {
			buf := make([]byte, hashPiece)
			for p := range work { // to the end, also after a failure: files are closed
				p.hash(ctx, buf)
			}
			return nil
		})
	}
	g.Go(func() error {
		for p := range order {
			<-p.done
			if p.err != nil {
				return p.err
			}
			if err := emit(p.record); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

// enqueue hands an entry to the hashers and to the one that emits. Every entry
// that has a file goes to the hashers, who close it.
func enqueue(ctx context.Context, e *entry, r *recorder, work, order chan<- *pending) error {
	rec, hasContent, err := r.record(e)
	if err != nil {
		return err
	}
	p := &pending{record: rec, done: make(chan struct{})}
	if !hasContent {
		close(p.done)
	} else {
		if p.file, err = e.open(); err != nil {
			return err
		}
		select {
		case work <- p:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), p.file.Close())
		}
	}
	select {
	case order <- p:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *pending) hash(ctx context.Context, buf []byte) {
	defer close(p.done)
	h := sha256.New()
	for p.err == nil {
		if p.err = ctx.Err(); p.err != nil {
			break
		}
		n, err := p.file.Read(buf)
		h.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		p.err = err
	}
	p.err = errors.Join(p.err, p.file.Close())
	p.content = hex.EncodeToString(h.Sum(nil))
}

// hasher makes the digests of a tree out of its records.
type hasher struct {
	metadata, full hash.Hash
	buf            []byte
}

func newHasher() *hasher { return &hasher{metadata: sha256.New(), full: sha256.New()} }

// add returns the line of the index, which is valid until the next call.
func (h *hasher) add(r record) []byte {
	h.buf = append(append(h.buf[:0], r.meta...), '\n')
	h.metadata.Write(h.buf)
	h.buf = append(append(append(h.buf[:len(h.buf)-1], ' '), r.content...), '\n')
	h.full.Write(h.buf)
	return h.buf
}

// digests returns both; that of everything is wrong if contents were not read.
func (h *hasher) digests() treeDigests {
	return treeDigests{
		Metadata: digest.NewDigest(digest.SHA256, h.metadata),
		Full:     digest.NewDigest(digest.SHA256, h.full),
	}
}
