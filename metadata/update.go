// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"fmt"
	"maps"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// UpdateInfo changes the labels of a snapshot, the only part of it that can be
// changed: all of them without fieldpaths or with "labels", single ones with
// "labels.NAME". An empty value removes a label.
//
// ErrNotFound: no such snapshot. ErrInvalidArgument: any other field path, or a
// label that Create would refuse.
func (tx *Tx) UpdateInfo(info snapshots.Info, fieldpaths ...string) (Snapshot, error) {
	n, r, err := tx.lookup(info.Name)
	if err != nil {
		return Snapshot{}, err
	}
	labels, err := updatedLabels(r.labels, info, fieldpaths)
	if err != nil {
		return Snapshot{}, err
	}
	if err := checkNameAndLabels(info.Name, labels); err != nil {
		return Snapshot{}, err
	}
	changed := *r
	changed.labels = cleanLabels(labels)
	changed.updated = now()
	if err := tx.replace(n, r, &changed); err != nil {
		return Snapshot{}, err
	}
	return tx.snapshot(n, &changed)
}

func updatedLabels(old map[string]string, info snapshots.Info, fieldpaths []string) (map[string]string, error) {
	if len(fieldpaths) == 0 {
		return info.Labels, nil
	}
	labels := maps.Clone(old)
	for _, path := range fieldpaths {
		key, single := strings.CutPrefix(path, "labels.")
		switch {
		case single:
			if labels == nil {
				labels = map[string]string{}
			}
			labels[key] = info.Labels[key]
		case path == "labels":
			labels = maps.Clone(info.Labels)
		default:
			return nil, fmt.Errorf("snapshot %q: field %q can't be changed, only labels can: %w", info.Name, path, errdefs.ErrInvalidArgument)
		}
	}
	return labels, nil
}
