// SPDX-License-Identifier: Apache-2.0

package fsck

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/internal/failpoint"
	"github.com/strata-snapshotter/strata/internal/inflate"
	"github.com/strata-snapshotter/strata/internal/mountuse"
	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/metadata"
	"github.com/strata-snapshotter/strata/overlayutil"
)

// madeAgain are the findings that are gone with another directory for the layer.
var madeAgain = map[Code]bool{
	CodeLayerMissing: true, CodeLayerFSMissing: true, CodeManifestMissing: true, CodeManifestUnreadable: true, CodeManifestNeeds: true,
	CodeDataMissing: true, CodeDataUnexpected: true, CodeDataType: true, CodeDataMode: true, CodeDataOwner: true, CodeDataSize: true,
	CodeDataTime: true, CodeDataXattr: true, CodeDataLink: true, CodeDataContent: true, CodeIndexDamaged: true,
}

// extractAgain is the plan to extract layer n from containerd's content store, or why that
// is not possible, if it was to be.
func (c *checker) extractAgain(n uint64) (plan []Action, why string) {
	l, recorded := c.db.Layers[n]
	_, external := c.survey.Notes[n]
	switch {
	case c.opts.Content == "":
		return nil, ""
	case c.opts.failed[n] != "":
		return nil, c.opts.failed[n]
	case external:
		return nil, "it is in an additional store"
	case !recorded || c.db.Incomplete:
		return nil, "metadata.db is damaged, too"
	case l.DiffID == "":
		return nil, "it was not extracted from a blob, or onto the layers below it"
	}
	blobs := c.blobsOf(l.DiffID)
	if len(blobs) == 0 {
		return nil, "no blob of it is in " + c.opts.Content
	}
	text := fmt.Sprintf("extract layer %d again, from blob %s, and put that in its place", n, blobs[0])
	return []Action{
		onDisk(text, func(ctx context.Context, dir *layerstore.Inspector) error { return c.replace(ctx, dir, l, blobs) }),
		deleteTrash(),
	}, ""
}

// blobsOf are the blobs of a layer that are there. One that is not compressed has the
// diffID for its digest.
func (c *checker) blobsOf(diffID digest.Digest) []digest.Digest {
	candidates := []digest.Digest{diffID}
	for _, blob := range slices.Sorted(maps.Keys(c.db.Blobs)) {
		if c.db.Blobs[blob] == diffID && blob != diffID {
			candidates = append(candidates, blob)
		}
	}
	return slices.DeleteFunc(candidates, func(blob digest.Digest) bool {
		f, err := openBlob(c.opts.Content, blob)
		return err != nil || f.Close() != nil
	})
}

// openBlob opens a blob of containerd's content store. No link is followed.
func openBlob(content string, blob digest.Digest) (_ *os.File, err error) {
	dir, err := unix.Open(content, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: content, Err: err}
	}
	defer func() { err = errors.Join(err, unix.Close(dir)) }()
	path := "blobs/" + blob.Algorithm().String() + "/" + blob.Encoded()
	fd, err := unix.Openat2(dir, path, &unix.OpenHow{
		// O_NONBLOCK: a fifo in its place must not hang us.
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: content + "/" + path, Err: err}
	}
	f := os.NewFile(uintptr(fd), content+"/"+path)
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(err, f.Close(), fmt.Errorf("%s is no file: %w", f.Name(), errdefs.ErrDataLoss))
	}
	return f, nil
}

// replace extracts a layer again, under a number of its own, and gives that to all
// snapshots in one transaction. What containers have mounted stays until they end: the
// directory is an orphan then.
func (c *checker) replace(ctx context.Context, dir *layerstore.Inspector, l metadata.Layer, blobs []digest.Digest) error {
	n, err := reserve(dir)
	if err != nil {
		return err
	}
	made, err := c.extractAny(ctx, dir, n, l, blobs)
	if err != nil {
		if errdefs.IsResourceExhausted(err) || ctx.Err() != nil {
			return err
		}
		c.opts.failed[l.Number] = err.Error() // others may still be helped
		return nil
	}
	if err := failpoint.Hit(failpoint.RepairSwap); err != nil {
		return err
	}
	now, err := metadata.Inspect(dir.DatabasePath())
	if err != nil {
		return err
	}
	if err := metadata.ApplyFixes(dir.DatabasePath(), now.ReplaceFixes(l, made)); err != nil {
		return err
	}
	failpoint.Pass(failpoint.RepairSwapped)
	used, err := mountuse.Of(append([]string{c.opts.Root}, c.opts.Aliases...))
	if err != nil || len(used[rel("layers", l.Number)]) > 0 {
		return err
	}
	return dir.TrashLayer(l.Number)
}

// reserve takes a number, for good.
func reserve(dir *layerstore.Inspector) (uint64, error) {
	c, err := metadata.Inspect(dir.DatabasePath())
	if err != nil {
		return 0, err
	}
	return c.Reserved, metadata.ApplyFixes(dir.DatabasePath(), []metadata.Fix{metadata.ReserveFix(c.Reserved + 1)})
}

// extractAny makes layer n of the first blob that is the layer old.
func (c *checker) extractAny(ctx context.Context, dir *layerstore.Inspector, n uint64, old metadata.Layer, blobs []digest.Digest) (metadata.Layer, error) {
	var failed []error
	for _, blob := range blobs {
		result, err := c.extract(ctx, dir, n, blob)
		if err == nil && result.DiffID != old.DiffID {
			err = fmt.Errorf("it is layer %s, and not %s: %w", result.DiffID, old.DiffID, errdefs.ErrDataLoss)
		}
		if err == nil && result.Needs.Mounted != "" {
			err = fmt.Errorf("the layer can only be extracted onto those below it: %w", errdefs.ErrFailedPrecondition)
		}
		if err == nil {
			return publishAgain(ctx, dir, n, old, result)
		}
		failed = append(failed, fmt.Errorf("blob %s: %w", blob, err), dir.DiscardLayer(n))
		if ctx.Err() != nil {
			break
		}
	}
	return metadata.Layer{}, errors.Join(failed...)
}

func (c *checker) extract(ctx context.Context, dir *layerstore.Inspector, n uint64, blob digest.Digest) (result archive.Result, err error) {
	staging, err := dir.StagingPath()
	if err != nil {
		return result, err
	}
	facts, err := overlayutil.CheckRoot(staging)
	if err != nil {
		return result, err
	}
	f, err := openBlob(c.opts.Content, blob)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	prefix := make([]byte, 4)
	if _, err := f.ReadAt(prefix, 0); err != nil && !errors.Is(err, io.EOF) {
		return result, err
	}
	src, err := inflate.Open(f, inflate.Detect(prefix), inflate.Options{})
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	to, err := dir.StageLayer(n)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if err := failpoint.Hit(failpoint.RepairExtract); err != nil {
		return result, err
	}
	return archive.Apply(ctx, src, to, archive.Options{Xattrs: facts.XattrNamespace(), Limits: c.opts.Limits, Ratio: src.InputOffset})
}

// publishAgain makes what was extracted layer n.
func publishAgain(ctx context.Context, dir *layerstore.Inspector, n uint64, old metadata.Layer, result archive.Result) (metadata.Layer, error) {
	m := layerstore.Manifest{
		DiffID: result.DiffID, Empty: result.Empty, OpaqueRoot: result.OpaqueRoot, Size: result.Size, Bytes: result.Bytes, Inodes: result.Inodes,
	}
	if !result.Needs.None() {
		needs, err := json.Marshal(result.Needs)
		if err != nil {
			return metadata.Layer{}, err
		}
		m.Needs = needs
	}
	m, err := dir.PublishLayer(ctx, n, m)
	return metadata.Layer{
		Number: n, DiffID: m.DiffID, Empty: m.Empty, OpaqueRoot: m.OpaqueRoot,
		Usage: snapshots.Usage{Size: m.Bytes, Inodes: m.Inodes}, Created: old.Created,
	}, err
}
