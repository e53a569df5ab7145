// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// earlyEvery is how long a layer is written to before what there is of it is sent to
// the disk, and between one time and the next. Layers that take less are synced by
// their files.
const earlyEvery = 300 * time.Millisecond

// WriteEarly has what is being written below dir written to the disk meanwhile, so that
// a large layer does not leave all of it for its end, when the disk alone would be busy.
// It uses dir until the returned function was called, which may be called again and
// returns why writing failed: the kernel tells that once, and not to who syncs later.
func (s *Store) WriteEarly(dir *os.File) (stop func() error) {
	if s.volatile {
		return func() error { return nil }
	}
	quit, result := make(chan struct{}), make(chan error, 1)
	go func() { result <- writeEarly(int(dir.Fd()), quit) }()
	return sync.OnceValue(func() error {
		close(quit)
		return s.rootError(<-result)
	})
}

func writeEarly(fd int, quit <-chan struct{}) error {
	timer := time.NewTimer(earlyEvery)
	defer timer.Stop()
	for {
		select {
		case <-quit:
			return nil
		case <-timer.C:
		}
		if err := unix.Syncfs(fd); err != nil {
			return err
		}
		timer.Reset(earlyEvery)
	}
}
