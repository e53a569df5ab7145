// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// On a full disk a directory can't always take another name: xfs keeps some twenty in
// the inode of the trash, and needs a block for the next. What is removed then stays
// where it was, named by nobody, until the trash has been emptied.

// stuckItem is something that is to be moved to the trash under a name.
type stuckItem struct {
	from     *os.File
	item, as string
}

// moveLater remembers what could not be moved. It returns false for what is in a
// directory that does not stay open.
func (s *Store) moveLater(from *os.File, item, as string) bool {
	if from != s.snapshots && from != s.layers && from != s.staging {
		return false
	}
	s.deleting.mu.Lock()
	defer s.deleting.mu.Unlock()
	s.deleting.stuck[stuckItem{from, item, as}] = struct{}{}
	s.wakeDeletion()
	return true
}

// moveStuck tries again. It says how many it moved, and how many still have no room.
func (s *Store) moveStuck() (moved, left int) {
	for _, item := range s.takeStuck() {
		// What fails for another reason is for Sweep to find.
		if err := s.moveToTrash(item.from, item.item, item.as); err == nil && !s.isStuck(item) {
			moved++
		}
	}
	s.deleting.mu.Lock()
	defer s.deleting.mu.Unlock()
	return moved, len(s.deleting.stuck)
}

func (s *Store) isStuck(item stuckItem) bool {
	s.deleting.mu.Lock()
	defer s.deleting.mu.Unlock()
	_, stuck := s.deleting.stuck[item]
	return stuck
}

// stillStuck is the error of having nothing left to delete, and no room yet.
func (s *Store) stillStuck(left int) error {
	if left == 0 {
		return nil
	}
	return fmt.Errorf("%d removed directories can't be moved to the trash, make room on the disk: %w", left, unix.ENOSPC)
}

func (s *Store) takeStuck() (items []stuckItem) {
	s.deleting.mu.Lock()
	defer s.deleting.mu.Unlock()
	for item := range s.deleting.stuck {
		items = append(items, item)
	}
	clear(s.deleting.stuck)
	return items
}
