// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	"github.com/strata-snapshotter/strata/layerindex"
	"github.com/strata-snapshotter/strata/overlayutil"
)

// Source hands out an uncompressed tar stream piece by piece. A piece is valid
// until the next call. io.EOF ends the stream. internal/inflate's readers are
// Sources.
type Source interface {
	Next() ([]byte, error)
}

// Filler is a Source that can put its bytes where they are wanted, which saves a copy.
type Filler interface {
	// Fill reads into p until it is full or the stream ends: with io.EOF, after which
	// there may be bytes in p all the same.
	Fill(p []byte) (n int, err error)
}

// Placer is a Source that brings its bytes into memory of the caller, at a place of its
// own choosing, as a decoder does that needs what it decoded before in front of them.
type Placer interface {
	// Room is how long the memory is that Place takes, in bytes.
	Room() int
	// Place returns the next bytes, which lie in buf and stay valid. What buf holds is not
	// changed before the next call has returned. io.EOF ends the stream.
	Place(buf []byte) ([]byte, error)
}

// Options say how a layer is extracted.
type Options struct {
	// Xattrs is the namespace of overlay's marks: overlayutil.Trusted, or
	// overlayutil.User in a user namespace. Empty means Trusted.
	Xattrs overlayutil.XattrNamespace
	// OverrideStat keeps owner, mode and type in user.containers.override_stat
	// rather than in the inode: no privilege is needed.
	OverrideStat bool
	// Lowers are the layers below, top first, for ApplyOnto and Answer of an ordinary
	// user, who can't mount them: directories with OverrideStat. Nothing in them is
	// changed.
	Lowers []*os.File
	// Limits bound what a layer may take. The zero value means DefaultLimits.
	Limits Limits
	// Ratio, if set, returns the compressed bytes read so far: the expansion
	// ratio is checked against it.
	Ratio func() int64
	// Warn, if set, is called with what is worth a warning, once for each kind.
	Warn func(text string)
	// Index, if set, gets a record of everything that Apply leaves in the directory, see
	// Result.Indexed. ApplyOnto takes no notice of it.
	Index *layerindex.Writer
}

// Result is what was found out while extracting.
type Result struct {
	// DiffID is the digest of the whole uncompressed stream, Size its length in
	// bytes.
	DiffID digest.Digest
	Size   int64
	// Bytes and Inodes are what the directory takes on disk: hard links once,
	// holes not, the directory itself included. Both are -1 where that was not
	// counted: the layer removed something of its own again, or was extracted
	// onto others.
	Bytes, Inodes int64
	// Empty: no entries. OpaqueRoot: everything below is hidden.
	Empty, OpaqueRoot bool
	// Indexed: Options.Index is finished, and right. It is not where the layer removed
	// something of its own again, is to be extracted onto others, or with OverrideStat:
	// what was written is of no use then, see layerindex.Build.
	Indexed bool
	// Needs is what only the layers below can answer.
	Needs Needs
}

// Needs is what a layer that was extracted alone asks of the layers below it.
type Needs struct {
	// Dirs are directories that the layer has files in but no entry for, parents
	// before children: slash separated, relative, without links. Their metadata
	// is whatever the layers below say.
	Dirs []string `json:"dirs,omitempty"`
	// Checks are directories of the layer that were implicit when an entry went
	// into them and named later: only whether the layers below have a link, or a
	// file, of that name matters.
	Checks []string `json:"checks,omitempty"`
	// Mounted says why the layer can only be extracted onto the layers below, by
	// ApplyOnto. Empty: it need not.
	Mounted string `json:"mounted,omitempty"`
	// Order says how the layer's entries came, for Replay: if the layers below have a link
	// where the layer has a directory, that decides what becomes of them. It is there if
	// there are Dirs or Checks, and the directory holds what the entries brought: not with
	// OverrideStat, not if the layer removed something of its own again, has sparse files,
	// devices that can't be made here, or very many entries.
	Order []byte `json:"order,omitempty"`
}

// None says whether nothing is needed: the layer is the same in every chain.
func (n Needs) None() bool {
	return len(n.Dirs) == 0 && len(n.Checks) == 0 && n.Mounted == ""
}

// FromReader makes a Source of a reader, reading in pieces of a quarter MiB.
func FromReader(r io.Reader) Source {
	return &readerSource{r: r, buf: make([]byte, pieceSize)}
}

const pieceSize = 256 << 10

type readerSource struct {
	r   io.Reader
	buf []byte
}

func (s *readerSource) Next() ([]byte, error) {
	n, err := io.ReadFull(s.r, s.buf)
	if err == io.ErrUnexpectedEOF {
		err = nil
	}
	return s.buf[:n], err
}
