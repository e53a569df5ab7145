// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/strata-snapshotter/strata/internal/durable"
	"golang.org/x/sys/unix"
)

// externalDir holds a file for each layer of an additional store, named by its
// number: which those are is known without a look at every layer.
const externalDir = "external"

// externalNote is such a file: where to find the directory again.
type externalNote struct {
	Store  string        `json:"store"`
	Path   string        `json:"path"`
	DiffID digest.Digest `json:"diffID"`
	MapIDs bool          `json:"mapIDs,omitempty"`
}

// externals are the layers of additional stores.
type externals struct {
	dir *os.File
	// changing is held while one is mounted, unmounted or moved. A store that does
	// not answer can hold it for long, so nothing else waits for it.
	changing sync.Mutex

	mu    sync.Mutex
	known map[uint64]externalNote
}

func (e *externals) get(n uint64) (note externalNote, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	note, ok = e.known[n]
	return note, ok
}

func (e *externals) set(n uint64, note externalNote) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.known[n] = note
}

func (e *externals) remove(n uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.known, n)
}

func (e *externals) numbers() []uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(maps.Keys(e.known))
}

// loadNotes reads what is known of layers in additional stores.
func (s *Store) loadNotes() error {
	s.externals.known = map[uint64]externalNote{}
	numbers, err := s.numbersIn(s.externals.dir)
	if err != nil {
		return err
	}
	for _, n := range numbers {
		note, err := s.readNote(n)
		if err != nil {
			return err
		}
		s.externals.set(n, note)
	}
	return nil
}

// readNote reads a note. One that can't be made sense of is replaced by what
// layer.json says; a layer that is not there is MountExternals' business.
func (s *Store) readNote(n uint64) (note externalNote, err error) {
	f, err := openNote(s.externals.dir, name(n))
	if err != nil {
		return note, fmt.Errorf("note on external layer %d: %w", n, err)
	}
	err = json.NewDecoder(f).Decode(&note)
	if closeErr := f.Close(); closeErr != nil {
		return note, closeErr
	}
	if err == nil {
		return note, nil
	}
	m, err := s.ReadManifest(n)
	if err != nil {
		return externalNote{}, nil
	}
	return externalNote{Store: m.Store, Path: m.StoreLayer, DiffID: m.DiffID}, nil
}

func openNote(dir *os.File, base string) (*os.File, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat(int(dir.Fd()), base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: base, Err: err}
	}
	return os.NewFile(uintptr(fd), base), nil
}

func (s *Store) writeNote(n uint64, note externalNote) error {
	b, err := json.Marshal(note)
	if err != nil {
		return err
	}
	write := durable.WriteFile
	if s.volatile {
		write = durable.ReplaceFile
	}
	if err := write(s.externals.dir, name(n), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("note on external layer %d: %w", n, err)
	}
	return s.sync(s.externals.dir.Sync)
}

// forgetNote is called once the layer is gone. The caller holds
// externals.changing.
func (s *Store) forgetNote(n uint64) error {
	s.externals.remove(n)
	err := unix.Unlinkat(int(s.externals.dir.Fd()), name(n), 0)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("note on external layer %d: %w", n, err)
	}
	return nil
}
