// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/strata-snapshotter/strata/overlayutil"
)

// ErrUnsure says that an upper directory holds what can't be turned into a layer
// without seeing the mounted result: marks of overlay that are not known, a
// reference to layers below that are not there, names that a layer has no way to
// carry. Nothing is wrong with the snapshot; walking the mounts still works.
var ErrUnsure = fmt.Errorf("the upper directory alone does not tell what changed: %w", errdefs.ErrNotImplemented)

// Upper is what Diff compares.
type Upper struct {
	// Dir is the upper directory of a snapshot's overlay, or a layer directory.
	Dir *os.File
	// Parent is the root of a read-only overlay of the layers below, nil when
	// there are none. Only paths that Dir has too, and those that it refers to,
	// are looked at.
	Parent *os.File
	// Xattrs is the namespace of the marks in Dir. Empty means Trusted.
	Xattrs overlayutil.XattrNamespace
	// OverrideStat says that Dir is an ordinary user's: owner, mode and type are in
	// attributes, those of Options.OverrideStat or of fuse-overlayfs, and a file
	// without them is as stat(2) says. The marks are in the user namespace.
	OverrideStat bool
	// Lowers are the layers below, top first, with OverrideStat and without Parent.
	Lowers []*os.File
}

// DiffOptions say how Diff writes a layer.
type DiffOptions struct {
	// SourceDateEpoch is the latest time, in whole seconds, that an entry gets. The
	// time of a whiteout is zero in any case, as it is in containerd.
	SourceDateEpoch *time.Time
	// Warn, if set, is called once for each attribute name that a layer can't carry.
	Warn func(text string)
}

// DiffResult is what Diff has written.
type DiffResult struct {
	// DiffID is the digest of the tar, Size its length in bytes.
	DiffID digest.Digest
	Size   int64
	// Entries is the number of tar entries, whiteouts and opaque markers included.
	Entries int64
}

// Diff writes the changes that an upper directory holds to w, as an uncompressed
// layer tar (OCI image-spec, layer.md). Applied over the parent it gives what the
// overlay of both shows. An entry comes after its directories, which have entries
// of their own, and an opaque marker right after its directory: the layer means
// the same to an applier that goes through it once, and can be extracted without
// the layers below it. The same directory gives the same bytes.
//
// The directory may be written to meanwhile. A file that is gone when its turn
// comes is left out, one that grew is cut, and one that shrank is an error
// (ErrUnavailable, naming it). What can't be translated is ErrUnsure. After an
// error w has got a part of a tar that is worth nothing.
//
// Sockets, the root's metadata and attributes other than user.*, POSIX ACLs and
// file capabilities are left out. An attribute that was removed from a directory
// stays where a layer is applied onto a plain directory: a layer can't say it.
func Diff(ctx context.Context, w io.Writer, upper Upper, opts DiffOptions) (res DiffResult, err error) {
	if upper.Xattrs == "" {
		upper.Xattrs = overlayutil.Trusted
	}
	if upper.OverrideStat {
		upper.Xattrs = overlayutil.User
	}
	if err := seesMarks(upper.Xattrs); err != nil {
		return DiffResult{}, err
	}
	proc, err := os.Open("/proc/self/fd")
	if err != nil {
		return DiffResult{}, diffError("/proc/self/fd", "open", err)
	}
	defer func() { err = errors.Join(err, proc.Close()) }()
	d := newDiffer(ctx, w, upper, opts)
	d.proc = int(proc.Fd())
	root, err := d.root(upper)
	if err != nil {
		return DiffResult{}, err
	}
	if err := d.closing(root, d.walk(root)); err != nil {
		return DiffResult{}, err
	}
	return d.out.finish()
}

func unsure(path, format string, args ...any) error {
	return fmt.Errorf("%q "+format+": %w", append(append([]any{path}, args...), ErrUnsure)...)
}
