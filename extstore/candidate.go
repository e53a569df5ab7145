// SPDX-License-Identifier: Apache-2.0

package extstore

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// candidate is a layer of a store that is being looked at.
type candidate struct {
	store        string
	dir          *os.File // the layer's directory
	fs           *os.File
	manifest     manifest
	manifestStat unix.Stat_t
}

// find returns the layer of an open store, or nil if it has none of that diffID.
func (s *Set) find(ctx context.Context, store *os.File, path string, diffID digest.Digest) (_ *candidate, err error) {
	c := &candidate{store: path}
	c.dir, err = openIn(store, layerPath(diffID), dirFlags, inStore)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, damagedIf(unix.ENOTDIR, err)
	}
	defer func() {
		err = errors.Join(err, c.dir.Close())
		if err != nil && c.fs != nil {
			err = errors.Join(err, c.fs.Close())
		}
	}()
	if err := c.read(diffID); err != nil {
		return nil, err
	}
	if namespaces[c.manifest.Xattrs] != s.ns {
		return nil, &problem{ReasonNamespace, fmt.Errorf("overlay's marks are in the namespace %q, and %q is needed here", c.manifest.Xattrs, namespaceName(s.ns))}
	}
	if c.fs, err = openIn(c.dir, fsName, dirFlags, inStore); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil, &problem{ReasonIncomplete, fmt.Errorf("it has no directory %s", fsName)}
		}
		return nil, damagedIf(unix.ENOTDIR, err)
	}
	err = s.verified(ctx, c)
	var bad *damage
	if errors.As(err, &bad) {
		err = &problem{ReasonDifferent, err}
	}
	return c, err
}

// read reads layer.json.
func (c *candidate) read(diffID digest.Digest) (err error) {
	c.manifestStat, err = readJSON(c.dir, layerFile, &c.manifest)
	if errors.Is(err, unix.ENOENT) {
		return &problem{ReasonIncomplete, fmt.Errorf("it has no %s: its export has not ended, or was interrupted", layerFile)}
	}
	if err != nil {
		return err
	}
	if err := c.manifest.check(diffID); err != nil {
		return &problem{ReasonDamaged, fmt.Errorf("%s: %w", layerFile, err)}
	}
	return nil
}

// damagedIf makes an error of the shape of a store one of its content.
func damagedIf(errno unix.Errno, err error) error {
	if errors.Is(err, errno) {
		return &problem{ReasonDamaged, err}
	}
	return err
}
