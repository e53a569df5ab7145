// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/strata-snapshotter/strata/internal/durable"
	"github.com/strata-snapshotter/strata/internal/failpoint"
	"github.com/strata-snapshotter/strata/internal/step"
	"golang.org/x/sys/unix"
)

// sealFile lies beside the directory of a snapshot that a layer was extracted
// into, and says what was found out, until Commit.
const sealFile = "seal.json"

// OpenUpper opens the upperdir of active snapshot n.
func (s *Store) OpenUpper(n uint64) (*os.File, error) {
	dir, err := openDir(int(s.snapshots.Fd()), name(n)+"/"+fsName)
	return dir, s.rootError(err)
}

// NumberOfUpper reads the number of the active snapshot whose upperdir path is.
func (s *Store) NumberOfUpper(path string) (uint64, bool) {
	rest, ok := strings.CutPrefix(path, s.alias+"/"+snapshotsDir+"/")
	if !ok {
		return 0, false
	}
	rest, ok = strings.CutSuffix(rest, "/"+fsName)
	if !ok {
		return 0, false
	}
	return parseName(rest)
}

func unlinkIfThere(dir *os.File, file string) error {
	err := unix.Unlinkat(int(dir.Fd()), file, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// SyncSnapshot makes what is in active snapshot n, which has that many inodes, and
// its index survive a power cut.
func (s *Store) SyncSnapshot(ctx context.Context, n uint64, inodes int64) error {
	defer step.Enter(ctx, step.Sync)()
	return s.sync(func() (err error) {
		defer func() { err = s.rootError(err) }()
		dir, err := s.OpenUpper(n)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, dir.Close()) }()
		files := fileList{many: inodes > maxFilesToSync}
		if !files.many && s.inOrder {
			if _, err := measure(ctx, dir, files.add); err != nil {
				return err
			}
			if err := syncIndex(s.snapshots, n); err != nil {
				return err
			}
		}
		return files.sync(dir, s.inOrder)
	})
}

// WriteSeal keeps v, as JSON, beside active snapshot n: through a restart, not
// through a power cut, after which nobody goes on with an extraction.
func (s *Store) WriteSeal(n uint64, v any) (err error) {
	defer func() { err = s.rootError(err) }()
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	dir, err := openDir(int(s.snapshots.Fd()), name(n))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if err := failpoint.Hit(failpoint.SealWrite); err != nil {
		return err
	}
	err = durable.ReplaceFile(dir, sealFile, b, 0o600)
	failpoint.Pass(failpoint.SealWritten)
	return err
}

// maxSeal bounds what is read into memory. A layer can need many directories.
const maxSeal = 256 << 20

// ReadSeal reads what WriteSeal kept. ErrNotFound: there is none.
func (s *Store) ReadSeal(n uint64, v any) (err error) {
	fd, err := unix.Openat(int(s.snapshots.Fd()), name(n)+"/"+sealFile, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("seal of snapshot number %d: %w", n, errdefs.ErrNotFound)
	}
	if err != nil {
		return s.rootError(err)
	}
	f := os.NewFile(uintptr(fd), sealFile)
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return s.rootError(err)
	}
	if st.Size() > maxSeal {
		return fmt.Errorf("seal of snapshot number %d has %d bytes: %w", n, st.Size(), errdefs.ErrDataLoss)
	}
	if err := json.NewDecoder(f).Decode(v); err != nil {
		return fmt.Errorf("seal of snapshot number %d: %w (%w)", n, err, errdefs.ErrDataLoss)
	}
	return nil
}

// DropSeal takes the seal of active snapshot n away, if there is one.
func (s *Store) DropSeal(n uint64) error {
	err := unix.Unlinkat(int(s.snapshots.Fd()), name(n)+"/"+sealFile, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return s.rootError(err)
}

// StagePatch makes an empty directory for patch layer n. The caller holds
// Begin(n), fills it, and calls PublishPatch or DiscardPatch.
func (s *Store) StagePatch(n uint64) (_ *os.File, err error) {
	defer func() { err = s.rootError(err) }()
	if err := mkdir(s.staging, name(n), 0o700); err != nil {
		return nil, err
	}
	dir, err := openDir(int(s.staging.Fd()), name(n))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if err := errors.Join(failpoint.Hit(failpoint.PatchStage), mkdir(dir, fsName, rootMode)); err != nil {
		return nil, err
	}
	return openDir(int(dir.Fd()), fsName)
}

// PublishPatch makes what was staged as n patch layer n, and makes it durable. answer is
// what it is found by.
func (s *Store) PublishPatch(ctx context.Context, n uint64, answer digest.Digest) (c Content, err error) {
	defer func() { err = s.rootError(err) }()
	dir, err := openDir(int(s.staging.Fd()), name(n)+"/"+fsName)
	if err != nil {
		return c, err
	}
	c, err = measure(ctx, dir, func(string) {})
	if err == nil {
		err = buildIndex(ctx, s.staging, n)
	}
	if err == nil && !s.inOrder {
		// Directories only: where changes are written in order, syncing what
		// comes after them is enough.
		err = s.sync(func() error { return unix.Syncfs(int(dir.Fd())) })
	}
	if err == nil && s.inOrder {
		err = s.sync(func() error { return syncIndex(s.staging, n) })
	}
	if err := errors.Join(err, dir.Close()); err != nil {
		return c, err
	}
	if err := s.putManifest(s.staging, n, Manifest{Patch: true, Answer: answer, Bytes: c.Bytes, Inodes: c.Inodes}); err != nil {
		return c, err
	}
	if err := failpoint.Hit(failpoint.PatchPlace); err != nil {
		return c, err
	}
	if err := rename(s.staging, name(n), s.layers, name(n)); err != nil {
		return c, err
	}
	failpoint.Pass(failpoint.PatchPlaced)
	return c, s.sync(s.syncLayers.Do)
}

// DiscardPatch removes what was staged, or published, as n.
func (s *Store) DiscardPatch(n uint64) error {
	return s.rootError(errors.Join(s.toTrash(s.staging, name(n)), s.toTrash(s.layers, name(n))))
}
