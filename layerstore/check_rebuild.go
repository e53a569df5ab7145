// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/failpoint"
)

// NewDatabasePath is where a new metadata.db is made before it takes the place of the old
// one. What an earlier attempt left there is removed.
func (i *Inspector) NewDatabasePath() (string, error) {
	path := i.DatabasePath() + temporarySuffix
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return path, i.s.rootError(err)
}

// ReplaceDatabase puts what is at NewDatabasePath, complete and durable, in the place of
// metadata.db, which gets another name, with the time in it, and is never removed. A crash
// in between leaves a root without a metadata.db. aside is where the old one is, empty if
// there was none.
func (i *Inspector) ReplaceDatabase(now time.Time) (aside string, err error) {
	if err := failpoint.Hit(failpoint.RebuildAside); err != nil {
		return "", err
	}
	root := i.s.root
	for try := 0; ; try++ {
		base := trashName(damagedPrefix+now.UTC().Format("20060102T150405Z"), try)
		err := rename(root, databaseName, root, base)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err == nil {
			aside = i.Path(base)
		} else if !errors.Is(err, unix.ENOENT) {
			return "", i.s.rootError(err)
		}
		break
	}
	if err := failpoint.Hit(failpoint.RebuildPlace); err != nil {
		return aside, err
	}
	if err := rename(root, databaseName+temporarySuffix, root, databaseName); err != nil {
		return aside, i.s.rootError(err)
	}
	failpoint.Pass(failpoint.RebuildPlaced)
	return aside, i.s.rootError(root.Sync())
}

// KeepSnapshot moves snapshots/N to kept, where nothing is ever removed from. Its path
// there is returned.
func (i *Inspector) KeepSnapshot(n uint64) (string, error) {
	return i.keep(i.s.snapshots, snapshotsDir, n)
}

// KeepLayer moves layers/N to kept.
func (i *Inspector) KeepLayer(n uint64) (string, error) { return i.keep(i.s.layers, layersDir, n) }

func (i *Inspector) keep(from *os.File, base string, n uint64) (_ string, err error) {
	if err := failpoint.Hit(failpoint.RebuildKeep); err != nil {
		return "", err
	}
	if err := mkdir(i.s.root, keptDir, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return "", i.s.rootError(err)
	}
	dir, err := openDir(int(i.s.root.Fd()), keptDir)
	if err != nil {
		return "", i.s.rootError(err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	to := fmt.Sprintf("%s-%d", base, n)
	if err := rename(from, name(n), dir, to); err != nil {
		return "", i.s.rootError(err)
	}
	return i.Path(filepath.Join(keptDir, to)), i.s.rootError(dir.Sync())
}
