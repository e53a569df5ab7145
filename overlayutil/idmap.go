// SPDX-License-Identifier: Apache-2.0

package overlayutil

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

const (
	// maxIDRanges is the number of lines that the kernel takes in a uid_map or
	// gid_map (UID_GID_MAP_MAX_EXTENTS).
	maxIDRanges = 340
	// maxIDMapSize is the size in bytes below which such a map must stay: it is
	// written in one write(2) of less than a page, one line a range, and a line
	// is as long as the range's text here with its comma.
	maxIDMapSize = 4096
	// idSpace is the number of valid ids, 0..2^32-2. The last 32-bit number is
	// "no id" to the kernel.
	idSpace = uint64(1)<<32 - 1
)

// IDRange maps Size consecutive ids from Container on, as seen in the container,
// to the ids from Host on.
type IDRange struct{ Container, Host, Size uint32 }

// IDMap is the id mapping of a snapshot, in the order in which it was written.
type IDMap struct{ UIDs, GIDs []IDRange }

// ParseIDMap parses the values of the labels containerd.io/snapshot/uidmapping
// and containerd.io/snapshot/gidmapping: "container:host:size[,...]" in plain
// decimal. It takes nothing that the kernel would refuse and nothing that could
// be read in two ways: no signs, spaces, leading zeros or text after a number,
// no empty or overlapping ranges, no id above 2^32-2; id 0 of the container must
// be mapped, or the container's root would own nothing. Every error is
// ErrInvalidArgument; one mapping without the other is an error too.
func ParseIDMap(uid, gid string) (IDMap, error) {
	uids, err := parseIDRanges("uid", uid)
	if err != nil {
		return IDMap{}, err
	}
	gids, err := parseIDRanges("gid", gid)
	if err != nil {
		return IDMap{}, err
	}
	return IDMap{UIDs: uids, GIDs: gids}, nil
}

// Root returns the host ids of the container's root.
func (m IDMap) Root() (uid, gid uint32) {
	uid, _ = hostID(m.UIDs, 0)
	gid, _ = hostID(m.GIDs, 0)
	return uid, gid
}

// Host returns the host ids of a container's uid and gid. An id outside the
// mapping is ErrInvalidArgument.
func (m IDMap) Host(uid, gid uint32) (hostUID, hostGID uint32, err error) {
	hostUID, ok := hostID(m.UIDs, uid)
	if !ok {
		return 0, 0, invalidArgument("uid %d is not in the snapshot's uid mapping %s: map more ids", uid, m.UIDString())
	}
	hostGID, ok = hostID(m.GIDs, gid)
	if !ok {
		return 0, 0, invalidArgument("gid %d is not in the snapshot's gid mapping %s: map more ids", gid, m.GIDString())
	}
	return hostUID, hostGID, nil
}

// UIDString returns the uid mapping in the form that ParseIDMap reads.
func (m IDMap) UIDString() string { return formatIDRanges(m.UIDs) }

// GIDString returns the gid mapping in the form that ParseIDMap reads.
func (m IDMap) GIDString() string { return formatIDRanges(m.GIDs) }

func hostID(ranges []IDRange, id uint32) (uint32, bool) {
	for _, r := range ranges {
		if id >= r.Container && id-r.Container < r.Size {
			return r.Host + (id - r.Container), true
		}
	}
	return 0, false
}

func formatIDRanges(ranges []IDRange) string {
	parts := make([]string, len(ranges))
	for i, r := range ranges {
		parts[i] = formatID(r.Container) + ":" + formatID(r.Host) + ":" + formatID(r.Size)
	}
	return strings.Join(parts, ",")
}

func formatID(id uint32) string { return strconv.FormatUint(uint64(id), 10) }

// parseIDRanges parses one mapping; kind ("uid", "gid") is for the messages.
func parseIDRanges(kind, text string) ([]IDRange, error) {
	if text == "" {
		return nil, invalidArgument("the snapshot has no %s mapping: uid and gid mapping must both be given", kind)
	}
	if len(text)+1 >= maxIDMapSize || strings.Count(text, ",") >= maxIDRanges {
		return nil, invalidArgument("%s mapping of %d bytes: the kernel takes %d ranges and less than %d bytes",
			kind, len(text), maxIDRanges, maxIDMapSize)
	}
	var ranges []IDRange
	for part := range strings.SplitSeq(text, ",") {
		r, ok := parseIDRange(part)
		if !ok {
			return nil, invalidArgument("%s mapping %q: %q is not container:host:size in plain decimal with ids up to %d",
				kind, text, part, idSpace-1)
		}
		ranges = append(ranges, r)
	}
	return ranges, checkIDRanges(kind, text, ranges)
}

func parseIDRange(part string) (r IDRange, ok bool) {
	fields := strings.Split(part, ":")
	if len(fields) != 3 {
		return r, false
	}
	for i, to := range []*uint32{&r.Container, &r.Host, &r.Size} {
		if *to, ok = parseID(fields[i]); !ok {
			return r, false
		}
	}
	fits := uint64(r.Container)+uint64(r.Size) <= idSpace && uint64(r.Host)+uint64(r.Size) <= idSpace
	return r, r.Size > 0 && fits
}

// parseID reads a 32-bit number written as formatID writes it, and no other way.
func parseID(text string) (uint32, bool) {
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), err == nil && formatID(uint32(n)) == text
}

func checkIDRanges(kind, text string, ranges []IDRange) error {
	container := func(r IDRange) uint32 { return r.Container }
	host := func(r IDRange) uint32 { return r.Host }
	if overlap(ranges, container) || overlap(ranges, host) {
		return invalidArgument("%s mapping %q: two ranges overlap", kind, text)
	}
	if _, ok := hostID(ranges, 0); !ok {
		return invalidArgument("%s mapping %q: id 0 of the container is not mapped", kind, text)
	}
	return nil
}

// overlap tells whether two ranges share an id on the side that start picks.
func overlap(ranges []IDRange, start func(IDRange) uint32) bool {
	sorted := slices.SortedFunc(slices.Values(ranges), func(a, b IDRange) int {
		return cmp.Compare(start(a), start(b))
	})
	for i := 1; i < len(sorted); i++ {
		if start(sorted[i])-start(sorted[i-1]) < sorted[i-1].Size {
			return true
		}
	}
	return false
}
