// SPDX-License-Identifier: Apache-2.0

package extstore

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/strata-snapshotter/strata/internal/durable"
	"golang.org/x/sys/unix"
)

// builtName is the layer in an export's own directory.
const builtName = "layer"

func isTemp(name string) bool { return strings.HasPrefix(name, tempPrefix) }

// build makes the layer in the export's own directory, layer.json last.
func (x *exporter) build(ctx context.Context) (err error) {
	built, err := makeDir(x.temp, builtName, 0o755)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, built.Close()) }()
	fs, err := makeDir(built, fsName, 0o700)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fs.Close()) }()
	digests, err := x.writeIndex(ctx, built)
	if err != nil {
		return err
	}
	if err := copyTree(ctx, x.layer.Dir, fs); err != nil {
		return err
	}
	if err := x.checkCopy(ctx, fs, built, digests); err != nil {
		return err
	}
	if err := unix.Syncfs(int(built.Fd())); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	b, err := json.MarshalIndent(x.manifest(digests), "", "  ")
	if err != nil {
		return err
	}
	if err := durable.WriteFile(built, layerFile, append(b, '\n'), 0o644); err != nil {
		return err
	}
	return built.Sync()
}

func (x *exporter) manifest(digests treeDigests) manifest {
	l := x.layer
	m := manifest{
		Format: layerFormat, Version: version, DiffID: l.DiffID, Size: l.Size, Bytes: l.Bytes, Inodes: l.Inodes,
		Empty: l.Empty, OpaqueRoot: l.OpaqueRoot, Needs: l.Needs, Xattrs: namespaceName(l.Xattrs),
		Created: l.Created.UTC(), Tree: digests,
	}
	if l.Created.IsZero() {
		m.Created = time.Now().UTC()
	}
	return m
}

// writeIndex lists what is to be copied.
func (x *exporter) writeIndex(ctx context.Context, built *os.File) (digests treeDigests, err error) {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(int(built.Fd()), indexFile, flags, 0o644)
	if err != nil {
		return digests, err
	}
	f := os.NewFile(uintptr(fd), indexFile)
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriter(f)
	h := newHasher()
	err = list(ctx, x.layer.Dir, x.layer.Xattrs, withContents, func(r record) error {
		_, err := w.Write(h.add(r))
		return err
	})
	var bad *damage
	if errors.As(err, &bad) {
		err = fmt.Errorf("%w (%w)", err, errdefs.ErrFailedPrecondition)
	}
	return h.digests(), errors.Join(err, w.Flush())
}

// checkCopy refuses a file system that does not keep what a layer is made of.
func (x *exporter) checkCopy(ctx context.Context, fs, built *os.File, want treeDigests) error {
	difference, got, err := inspect(ctx, fs, built, x.layer.Xattrs, metadataOnly)
	if err != nil {
		return err
	}
	if got.Metadata != want.Metadata {
		return fmt.Errorf("the file system of the store does not keep everything: %s: %w", difference, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// publish moves the layer to its place. Somebody else may have been quicker, and
// something that is not complete may be in the way.
func (x *exporter) publish(ctx context.Context) (*manifest, error) {
	hex := x.layer.DiffID.Encoded()
	for try := 0; ; try++ {
		err := x.move(builtName, x.algo, hex)
		if err == nil {
			err = errors.Join(x.algo.Sync(), x.store.Sync())
		}
		if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOTEMPTY) {
			return nil, err
		}
		have, publishedErr := x.published()
		if have != nil || publishedErr != nil {
			return have, publishedErr
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		// Without layer.json it is no layer: another tool stopped in the middle of
		// copying it. It is removed with the directory of this export.
		err = unix.Renameat(int(x.algo.Fd()), hex, int(x.temp.Fd()), fmt.Sprintf("incomplete-%d", try))
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, err
		}
	}
}

// move renames what is in the export's own directory, and fails rather than
// replace a directory.
func (x *exporter) move(name string, to *os.File, newName string) error {
	err := unix.Renameat2(int(x.temp.Fd()), name, int(to.Fd()), newName, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// A file system that can't promise it. A directory with something in it is
		// never replaced.
		err = unix.Renameat(int(x.temp.Fd()), name, int(to.Fd()), newName)
	}
	if err != nil {
		return fmt.Errorf("move the layer to its place: %w", err)
	}
	return nil
}

// replaceManifest writes layer.json of the published layer again.
func (x *exporter) replaceManifest(m *manifest) (err error) {
	dir, err := openIn(x.algo, x.layer.DiffID.Encoded(), dirFlags, inStore)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return x.writeJSON(m, 0o644, dir, layerFile)
}

func (x *exporter) writeJSON(v any, mode uint32, dir *os.File, name string) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return x.writeFile(append(b, '\n'), mode, dir, name)
}

// writeFile writes a file in the export's own directory, whose names nobody else
// uses, and renames it to its place.
func (x *exporter) writeFile(b []byte, mode uint32, dir *os.File, name string) error {
	if err := durable.WriteFile(x.temp, name, b, mode); err != nil {
		return err
	}
	if err := unix.Renameat(int(x.temp.Fd()), name, int(dir.Fd()), name); err != nil {
		return fmt.Errorf("rename %s: %w", name, err)
	}
	return dir.Sync()
}

// noteBlob writes which layer the blob unpacks to, where look-ups find it.
func (x *exporter) noteBlob(blob digest.Digest) (err error) {
	have, err := readBlobNote(x.store, blob)
	if err == nil && have == x.layer.DiffID {
		return nil
	}
	dir, err := x.directory(0o755, blobsDir, blob.Algorithm().String())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return x.writeFile([]byte(x.layer.DiffID+"\n"), 0o644, dir, blob.Encoded())
}

// directory opens top/sub of the store, and makes what is missing.
func (x *exporter) directory(topMode uint32, top, sub string) (_ *os.File, err error) {
	dir, err := makeDir(x.store, top, topMode)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return makeDir(dir, sub, 0o755)
}

// makeDir opens a directory, which it makes, with exactly that mode, if it is
// not there.
func makeDir(in *os.File, name string, mode uint32) (*os.File, error) {
	err := unix.Mkdirat(int(in.Fd()), name, mode)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make directory %s/%s: %w", in.Name(), name, err)
	}
	if err == nil {
		if err := errors.Join(unix.Fchmodat(int(in.Fd()), name, mode, 0), in.Sync()); err != nil {
			return nil, err
		}
	}
	return openIn(in, name, dirFlags, inStore)
}
