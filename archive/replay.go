// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Replay is ApplyOnto of a layer whose stream is not at hand: Apply extracted it to the
// directory layer, and returned needs with an Order. What comes of it is what would come
// of the stream. Result says nothing of that: it has no digest and no size.
//
// Errors are those of ApplyOnto. ErrDataLoss: the directory is not what Apply left, or the
// order makes no sense. ErrFailedPrecondition: a newer Strata wrote the order.
func Replay(ctx context.Context, layer *os.File, needs Needs, dir *os.File, opts Options) (Result, error) {
	opts = opts.withDefaults()
	r, w := io.Pipe()
	p := &replay{ctx: ctx, layer: layer, tar: tar.NewWriter(w), meta: newMetadata(opts, warnOnce(opts.Warn)), chunk: make([]byte, pieceSize)}
	written := make(chan error, 1)
	go func() {
		err := p.write(needs.Order)
		_ = w.CloseWithError(err) // never fails
		written <- err
	}()
	result, err := ApplyOnto(ctx, FromReader(r), dir, opts)
	_ = r.CloseWithError(errReplayEnded) // never fails
	if writeErr := <-written; writeErr != nil && !errors.Is(writeErr, errReplayEnded) {
		err = writeErr // what ApplyOnto says is that its stream failed
	}
	result.DiffID, result.Size = "", 0 // of a stream that nobody else has
	return result, classify(err)
}

var errReplayEnded = errors.New("nobody reads the layer any more")

// replay writes a tar of a layer's directory that means what the layer's own did.
type replay struct {
	ctx   context.Context
	layer *os.File
	tar   *tar.Writer
	meta  *metadata
	chunk []byte
}

func (p *replay) write(order []byte) error {
	r, err := newOrderReader(order)
	if err != nil {
		return err
	}
	for {
		e, more, err := r.next()
		if err == nil && !more {
			return p.tar.Close()
		}
		if err == nil {
			err = p.ctx.Err()
		}
		if err == nil {
			err = p.entry(e)
		}
		if err != nil {
			return err
		}
	}
}

func (p *replay) entry(e ordered) (err error) {
	if e.kind == orderMarker {
		return p.header(&tar.Header{Typeflag: tar.TypeReg, Name: e.path})
	}
	dir, base := splitLast(e.path)
	dirfd, err := openBeneath(int(p.layer.Fd()), "./"+dir)
	if err != nil {
		return notThere(e.path, err)
	}
	defer func() { err = errors.Join(err, unix.Close(dirfd)) }()
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return notThere(e.path, err)
	}
	h, err := p.describe(e, &st, dirfd, base)
	if err != nil {
		return fmt.Errorf("read %s of the layer: %w", quote(e.path), err)
	}
	if h.Typeflag != tar.TypeReg {
		return p.header(h)
	}
	return p.file(h, dirfd, base)
}

// notThere: nobody removes anything from a layer.
func notThere(path string, err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("%s is not in the layer's directory: %w (%w)", quote(path), err, errdefs.ErrDataLoss)
	}
	return fmt.Errorf("read %s of the layer: %w", quote(path), err)
}

func (p *replay) header(h *tar.Header) error {
	h.Format = tar.FormatPAX
	if err := p.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("write the entry %s: %w", quote(h.Name), err)
	}
	return nil
}

// describe makes the header of a file. Metadata that a later hard link or entry of the
// layer changed is given as it was in the end, which is how it ends here, too.
func (p *replay) describe(e ordered, st *unix.Stat_t, dirfd int, base string) (*tar.Header, error) {
	h := &tar.Header{
		Name: e.path, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid), ModTime: time.Unix(st.Mtim.Unix()),
	}
	if err := p.xattrs(h, dirfd, base); err != nil {
		return nil, err
	}
	if e.kind == orderLink {
		h.Typeflag, h.Linkname = tar.TypeLink, e.link
		return h, nil
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, e.path+"/"
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(dirfd, base, buf)
		h.Typeflag, h.Linkname = tar.TypeSymlink, string(buf[:max(n, 0)])
		return h, err
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeBlock
		if st.Mode&unix.S_IFMT == unix.S_IFCHR {
			h.Typeflag = tar.TypeChar
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	default:
		return nil, fmt.Errorf("it is of a kind that no layer has (mode %#o): %w", st.Mode, errdefs.ErrDataLoss)
	}
	return h, nil
}

// xattrs are those that a layer may bring, see entryOf.
func (p *replay) xattrs(h *tar.Header, dirfd int, base string) error {
	// A link below /proc/self/fd leads to the very directory; base is not followed.
	at := "/proc/self/fd/" + strconv.Itoa(dirfd) + "/" + base
	names, err := p.attribute(func(b []byte) (int, error) { return unix.Llistxattr(at, b) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list its attributes: %w", err)
	}
	for name := range strings.SplitSeq(names, "\x00") {
		if name == "" || ofTheHost(name) || !p.meta.allowed(name) {
			continue
		}
		value, err := p.attribute(func(b []byte) (int, error) { return unix.Lgetxattr(at, name, b) })
		if err != nil {
			return fmt.Errorf("read its attribute %s: %w", quote(name), err)
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[xattrPrefix+name] = value
	}
	return nil
}

// attribute uses the memory for content, which is larger than any attribute or list of
// names, see limits.h of the kernel.
func (p *replay) attribute(read func([]byte) (int, error)) (string, error) {
	n, err := read(p.chunk)
	if err != nil {
		return "", err
	}
	return string(p.chunk[:n]), nil
}

func (p *replay) file(h *tar.Header, dirfd int, base string) (err error) {
	fd, err := unix.Openat(dirfd, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return notThere(h.Name, err)
	}
	f := os.NewFile(uintptr(fd), h.Name)
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := p.header(h); err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{p.tar}, struct{ io.Reader }{io.LimitReader(f, h.Size)}, p.chunk)
	if err == nil && n < h.Size {
		err = fmt.Errorf("%s of the layer has become shorter: %w", quote(h.Name), errdefs.ErrDataLoss)
	}
	return err
}
