// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/failpoint"
)

// StagingPath is where directories are put together. It is made if it is missing.
func (i *Inspector) StagingPath() (string, error) {
	return i.s.StagingPath(), i.MakeDir(stagingDir)
}

// StageLayer makes an empty directory for layer n, a number that was never used, and opens
// it.
func (i *Inspector) StageLayer(n uint64) (*os.File, error) {
	if err := i.MakeDir(stagingDir); err != nil {
		return nil, err
	}
	return i.s.StagePatch(n)
}

// DiscardLayer moves what StageLayer made to the trash.
func (i *Inspector) DiscardLayer(n uint64) error { return i.trash(i.s.staging, name(n)) }

// PublishLayer makes what was staged as n layer n, with its index, and makes it durable.
// What m does not say of its size, with negative numbers, is measured; how it is described
// is returned.
func (i *Inspector) PublishLayer(ctx context.Context, n uint64, m Manifest) (_ Manifest, err error) {
	defer func() { err = i.s.rootError(err) }()
	if err := errors.Join(i.MakeDir(layersDir), buildIndex(ctx, i.s.staging, n)); err != nil {
		return m, err
	}
	dir, err := openDir(int(i.s.staging.Fd()), name(n)+"/"+fsName)
	if err != nil {
		return m, err
	}
	if m.Bytes < 0 {
		var c Content
		c, err = measure(ctx, dir, func(string) {})
		m.Bytes, m.Inodes, m.Empty = c.Bytes, c.Inodes, c.Empty
	}
	if err == nil {
		err = unix.Syncfs(int(dir.Fd()))
	}
	if err := errors.Join(err, dir.Close()); err != nil {
		return m, err
	}
	if err := i.s.putManifest(i.s.staging, n, m); err != nil {
		return m, err
	}
	if err := failpoint.Hit(failpoint.RepairPlace); err != nil {
		return m, err
	}
	if err := rename(i.s.staging, name(n), i.s.layers, name(n)); err != nil {
		return m, err
	}
	failpoint.Pass(failpoint.RepairPlaced)
	return m, errors.Join(i.s.layers.Sync(), i.s.staging.Sync())
}
