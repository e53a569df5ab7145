// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/opencontainers/go-digest"
	"github.com/strata-snapshotter/strata/overlayutil"
)

// Apply extracts a layer alone into dir, which is empty, nobody else's, and not
// a mount of its own. The stream is read and hashed to its end.
//
// If Needs.Mounted is set, dir is empty again and all that is known is the digest
// and the size: the layer must be extracted by ApplyOnto.
//
// ErrInvalidArgument: the tar is broken or asks for what a layer may not; the
// entry is named. ErrResourceExhausted: a limit, or the disk is full. The errors
// of src come back as they are. After an error dir holds leftovers.
func Apply(ctx context.Context, src Source, dir *os.File, opts Options) (Result, error) {
	opts = opts.withDefaults()
	return extract(ctx, src, opts, func(x *extraction) error {
		x.index = newIndexer(opts)
		x.writers.index = x.index
		a := &alone{extraction: x, tree: newTree(dir)}
		err := errors.Join(a.writers.end(a.run()), a.tree.close())
		var mounted *needsMounted
		if errors.As(err, &mounted) {
			x.result = Result{Needs: Needs{Mounted: mounted.reason}}
			return empty(dir)
		}
		return err
	})
}

func (o Options) withDefaults() Options {
	if o.Xattrs == "" {
		o.Xattrs = overlayutil.Trusted
	}
	if o.OverrideStat {
		o.Xattrs = overlayutil.User
	}
	if o.Limits == (Limits{}) {
		o.Limits = DefaultLimits()
	}
	return o
}

// extraction is what both ways of extracting have in common.
type extraction struct {
	ctx     context.Context
	opts    Options
	stream  *stream
	tar     *tarReader
	writers *writers
	meta    *metadata
	index   *indexer // nil: none is asked for
	result  Result

	entries int64
	content int64 // bytes of files so far
}

// extract reads all of src while run makes files of it.
func extract(ctx context.Context, src Source, opts Options, run func(*extraction) error) (Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := newStream(ctx, src)
	defer s.close()
	defer cancel() // before close, which waits for who fills the stream
	x := &extraction{
		ctx: ctx, opts: opts, stream: s, tar: newTarReader(s, opts.Limits),
		writers: newWriters(), meta: newMetadata(opts, warnOnce(opts.Warn)),
	}
	s.check = x.checkRatio
	err := onThread(func() error { return run(x) })
	if err == nil {
		err = s.drain()
	}
	if err != nil {
		return Result{}, classify(err)
	}
	x.result.DiffID = digest.NewDigest(digest.SHA256, s.hash)
	x.result.Size = s.size
	return x.result, nil
}

// warnOnce passes one warning of each kind on.
func warnOnce(warn func(string)) func(kind, text string) {
	var mu sync.Mutex
	seen := map[string]bool{}
	return func(kind, text string) {
		mu.Lock()
		defer mu.Unlock()
		if warn == nil || seen[kind] || len(seen) > 100 {
			return
		}
		seen[kind] = true
		warn(text)
	}
}

// ratioFrom is below which size nobody asks how well it was compressed.
const ratioFrom = 64 << 20

func (x *extraction) checkRatio(read int64) error {
	if x.opts.Ratio == nil || x.opts.Limits.Ratio == 0 || read < ratioFrom {
		return nil
	}
	if compressed := x.opts.Ratio(); read/x.opts.Limits.Ratio > compressed {
		return fmt.Errorf("%d bytes of layer from %d compressed bytes: over the limit of %d for one: %w",
			read, compressed, x.opts.Limits.Ratio, errdefs.ErrResourceExhausted)
	}
	return nil
}

// each calls fn for every entry. fn consumes the content.
func (x *extraction) each(fn func(*entry) error) error {
	for {
		e, err := x.tar.next()
		if errors.Is(err, io.EOF) {
			return x.writers.settle()
		}
		if err == nil {
			err = x.count(e)
		}
		if err == nil {
			err = fn(e)
		}
		if err == nil {
			err = x.writers.failed()
		}
		if err != nil {
			return err
		}
	}
}

func (x *extraction) count(e *entry) error {
	if err := x.ctx.Err(); err != nil {
		return err
	}
	x.entries++
	x.content += e.size
	limits := x.opts.Limits
	if limits.Entries > 0 && x.entries > limits.Entries {
		return over("the number of entries", limits.Entries, e.name)
	}
	if limits.Bytes > 0 && (x.content > limits.Bytes || x.content < 0) {
		return over("the size of all files", limits.Bytes, e.name)
	}
	var attrs int64
	for _, a := range e.xattrs {
		attrs += int64(len(a.key) + len(a.value))
	}
	if limits.Xattrs > 0 && attrs > limits.Xattrs {
		return over("the size of its attributes", limits.Xattrs, e.name)
	}
	return nil
}

// skipContent leaves out the content of an entry that is not extracted.
func (x *extraction) skipContent(e *entry) error {
	if err := x.stream.skip(e.stored); err != nil {
		return x.tar.cut(err)
	}
	return nil
}

// fill passes the content of e to a new file, which it takes over.
func (x *extraction) fill(fd int, path string, e *entry, created uint32) error {
	f := x.writers.start(fd, e, created, x.meta)
	f.path = path
	segments := e.segments
	if segments == nil {
		segments = []segment{{0, e.size}}
	}
	sent := int64(0)
	for _, s := range segments {
		for offset, end := s.offset, s.offset+s.length; offset < end; {
			b, from, err := x.stream.some(end - offset)
			if err != nil {
				f.abort()
				return x.tar.cut(err)
			}
			sent += int64(len(b))
			if int64(len(b)) == e.stored {
				f.whole(b, offset, from)
				return nil
			}
			f.put(b, offset, from, sent == e.stored)
			offset += int64(len(b))
		}
	}
	if e.stored == 0 {
		f.whole(nil, 0, nil)
	}
	return nil
}

// makeNode makes what is neither a file with content nor a directory.
func (x *extraction) makeNode(dirfd int, base string, e *entry) error {
	switch {
	case e.typ == typeSymlink:
		if e.link == "" || len(e.link) >= unix.PathMax {
			return bad("entry %s: a link to %s", quote(e.name), quote(e.link))
		}
		return unix.Symlinkat(e.link, dirfd, base)
	case x.opts.OverrideStat:
		fd, err := unix.Openat(dirfd, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, overrideFileMode)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	case e.typ == typeFifo:
		return unix.Mknodat(dirfd, base, unix.S_IFIFO|e.mode&0o777, 0)
	case e.typ == typeChar:
		return unix.Mknodat(dirfd, base, unix.S_IFCHR|e.mode&0o777, int(unix.Mkdev(e.major, e.minor)))
	case e.typ == typeBlock:
		return unix.Mknodat(dirfd, base, unix.S_IFBLK|e.mode&0o777, int(unix.Mkdev(e.major, e.minor)))
	}
	return bad("entry %s has type %q, which is none that a layer can have", quote(e.name), e.typ)
}

// skipsDevice says whether e is a device that can't be made here: in a user
// namespace containerd leaves those out, too.
func (x *extraction) skipsDevice(e *entry) bool {
	if !e.isDevice() || !x.meta.userns || x.opts.OverrideStat {
		return false
	}
	x.meta.warn("device", fmt.Sprintf("device %s can't be made in a user namespace and is left out", quote(e.name)))
	return true
}

// isWhiteoutDevice: a layer that brought one would hide files in a way that no
// other program sees.
func (e *entry) isWhiteoutDevice() bool {
	return e.typ == typeChar && e.major == 0 && e.minor == 0
}

// empty removes all that is in dir.
func empty(dir *os.File) error {
	fd, err := unix.Openat(int(dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return removeContents(os.NewFile(uintptr(fd), dir.Name()), 0)
}
