// SPDX-License-Identifier: Apache-2.0

package archive

// Limits bound what one layer may take. A layer over a limit is refused with
// ErrResourceExhausted. Zero means no limit.
type Limits struct {
	Bytes     int64 // of file contents, holes included
	Entries   int64 // in the tar
	PathBytes int   // of a path or link target
	Depth     int   // of a path, in components
	NameBytes int   // of one component
	Xattrs    int64 // bytes of extended attributes of one entry, names included
	Ratio     int64 // uncompressed bytes for one compressed byte, once over 64 MiB
}

// DefaultLimits are far over what images have and far below what hurts a node.
func DefaultLimits() Limits {
	return Limits{
		Bytes:     256 << 30,
		Entries:   10_000_000,
		PathBytes: 64 << 10,
		Depth:     4096,
		NameBytes: 255,
		Xattrs:    1 << 20,
		Ratio:     1100, // deflate ends at 1032
	}
}
