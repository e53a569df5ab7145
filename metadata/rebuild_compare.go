// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// CompareLog holds the log of the store at path against what Inspect read there, and says
// what is different. A log of another transaction is not compared: what is behind is made
// anew when the store is opened.
//
// ErrNotFound: there is no log. ErrDataLoss: it is damaged, or not all of it was written.
func (c *Contents) CompareLog(path string) ([]string, error) {
	saved, err := ReadSaved(path)
	switch {
	case err != nil:
		return nil, err
	case saved.last != c.last:
		return nil, nil
	case !saved.complete:
		return nil, fmt.Errorf("%s: %s: %w", LogPath(path), strings.Join(saved.Lost, ", "), errdefs.ErrDataLoss)
	}
	return slices.Concat(
		differing("snapshot", c.Snapshots, saved.Snapshots, c.SnapshotsUnreadable),
		differing("layer", c.Layers, saved.Layers, c.LayersUnreadable),
	), nil
}

// differing names the numbers of what is different. What can't be read is a problem of
// its own.
func differing[V any](what string, db, log map[uint64]V, unreadable map[uint64]bool) []string {
	var found []string
	for _, n := range slices.Sorted(maps.Keys(db)) {
		if other, ok := log[n]; !ok {
			found = append(found, fmt.Sprintf("%s %d is not in the log", what, n))
		} else if !reflect.DeepEqual(db[n], other) {
			found = append(found, fmt.Sprintf("%s %d is another in the log", what, n))
		}
	}
	for _, n := range slices.Sorted(maps.Keys(log)) {
		if _, ok := db[n]; !ok && !unreadable[n] {
			found = append(found, fmt.Sprintf("%s %d is only in the log", what, n))
		}
	}
	return found
}
