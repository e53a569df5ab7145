// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// temporarySuffix is that of files that are renamed when they are complete.
const temporarySuffix = ".tmp"

// dropTemporaries removes the files in an open directory whose writing a crash
// interrupted, of those that are ours by the name that they would have got. Nobody may be
// writing there.
func dropTemporaries(dir *os.File, ours func(name string) bool) error {
	names, err := listDir(dir)
	if err != nil {
		return err
	}
	for _, base := range names {
		whole, cut := strings.CutSuffix(base, temporarySuffix)
		if !cut || !ours(whole) {
			continue
		}
		if err := unix.Unlinkat(int(dir.Fd()), base, 0); err != nil {
			return fmt.Errorf("remove %s/%s: %w", dir.Name(), base, err)
		}
	}
	return nil
}

// dropTemporariesOf does so in the directory of an active snapshot.
func (s *Store) dropTemporariesOf(n uint64) (err error) {
	dir, err := openDir(int(s.snapshots.Fd()), name(n))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return dropTemporaries(dir, func(name string) bool { return filepath.Ext(name) == ".json" })
}
