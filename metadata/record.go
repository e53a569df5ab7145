// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
)

const recordVersion = 1

// record is a snapshot as it is stored. The parent is a number: a chain is
// followed without looking up names, and a record does not grow with the name
// of its parent.
type record struct {
	name    string
	kind    snapshots.Kind
	parent  uint64 // 0: none
	layer   uint64 // 0: none; committed snapshots have one
	patch   uint64 // 0: none; a layer on top of layer
	usage   snapshots.Usage
	created time.Time
	updated time.Time
	labels  map[string]string
}

func (r *record) encode() []byte {
	b := make([]byte, 0, 256)
	b = append(b, recordVersion, byte(r.kind))
	b = binary.AppendUvarint(b, r.parent)
	b = binary.AppendUvarint(b, r.layer)
	b = binary.AppendUvarint(b, r.patch)
	b = binary.AppendVarint(b, r.usage.Size)
	b = binary.AppendVarint(b, r.usage.Inodes)
	b = binary.AppendVarint(b, r.created.UnixNano())
	b = binary.AppendVarint(b, r.updated.UnixNano()-r.created.UnixNano())
	b = appendString(b, r.name)
	b = binary.AppendUvarint(b, uint64(len(r.labels)))
	same := digestOf(r.name) // and, of an extracted layer, the label snapshot.ref
	for _, k := range slices.Sorted(maps.Keys(r.labels)) {
		b = appendString(b, k)
		b = appendSame(b, r.labels[k], same)
	}
	return b
}

func decodeRecord(b []byte) (*record, error) {
	d := &decoder{b: b}
	r := decodeHead(d)
	d.same = digestOf(r.name)
	r.labels = decodeLabels(d)
	return r, d.finish()
}

// decodeHead reads all but the labels, which are most of a record.
func decodeHead(d *decoder) *record {
	if v := d.byte(); v != recordVersion {
		d.fail("unknown version")
	}
	r := &record{kind: snapshots.Kind(d.byte())}
	r.parent = d.uvarint()
	r.layer = d.uvarint()
	r.patch = d.uvarint()
	r.usage.Size = d.varint()
	r.usage.Inodes = d.varint()
	created := d.varint()
	r.created = timeOf(created)
	r.updated = timeOf(created + d.varint())
	r.name = d.string()
	return r
}

func decodeLabels(d *decoder) map[string]string {
	n := d.uvarint()
	if n == 0 || d.err != nil {
		return nil
	}
	labels := make(map[string]string)
	for i := uint64(0); i < n && d.err == nil; i++ {
		k := d.string()
		labels[k] = d.string()
	}
	return labels
}

// timeOf gives every reader the same value for the same record: in UTC and
// without a monotonic part, so that two of them compare equal with ==.
func timeOf(nanos int64) time.Time {
	return time.Unix(0, nanos).UTC()
}

func now() time.Time {
	return timeOf(time.Now().UnixNano())
}

// cleanLabels copies labels without those that have no value: setting a label
// to nothing removes it, as in containerd.
func cleanLabels(labels map[string]string) map[string]string {
	var clean map[string]string
	for k, v := range labels {
		if v == "" {
			continue
		}
		if clean == nil {
			clean = make(map[string]string, len(labels))
		}
		clean[k] = v
	}
	return clean
}
