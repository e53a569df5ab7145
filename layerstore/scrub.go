// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/durable"
)

// scrubFile is in the root and says how far checking the layers came.
const scrubFile = "scrub.json"

// Layers returns the numbers of the directories in layers, in order: also of those whose
// transaction is under way.
func (s *Store) Layers() ([]uint64, error) {
	numbers, err := s.numbersIn(s.layers)
	slices.Sort(numbers)
	return numbers, s.rootError(err)
}

// WriteScrub keeps v, as JSON, for the next process. A power cut may take it.
func (s *Store) WriteScrub(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.rootError(durable.ReplaceFile(s.root, scrubFile, b, 0o600))
}

// ReadScrub reads what WriteScrub kept. ErrNotFound: there is nothing that makes sense.
func (s *Store) ReadScrub(v any) (err error) {
	fd, err := unix.Openat(int(s.root.Fd()), scrubFile, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%s: %w", scrubFile, errdefs.ErrNotFound)
	}
	if err != nil {
		return s.rootError(err)
	}
	f := os.NewFile(uintptr(fd), scrubFile)
	defer func() { err = errors.Join(err, f.Close()) }()
	const most = 4096
	if err := json.NewDecoder(io.LimitReader(f, most)).Decode(v); err != nil {
		return fmt.Errorf("%s: %w (%w)", scrubFile, err, errdefs.ErrNotFound)
	}
	return nil
}
