// SPDX-License-Identifier: Apache-2.0

package config

import "math"

// The largest values of those limits that bound memory: what an extended header
// of a tar claims to have is allocated up to them.
const (
	// MaxPathBytes is the most that Limits.PathBytes may be.
	MaxPathBytes = 1 << 20
	// MaxXattrBytes is the most that Limits.XattrBytes may be.
	MaxXattrBytes = 16 << 20
	// MaxNameBytes is the most that Limits.NameBytes may be: NAME_MAX, see
	// limits.h(0p). No file system of Linux takes a longer name.
	MaxNameBytes = 255
)

// Limits is the table [limits]: what one layer may take before it is refused with
// ResourceExhausted. The keys mean what the fields of archive.Limits do.
type Limits struct {
	// Bytes bounds the sizes of all files of a layer together, holes included;
	// 0 means no limit.
	Bytes int64 `toml:"bytes" comment:"Size of all files together in bytes, holes included. 0: no limit."`
	// Entries bounds the entries of the tar, and so the inodes; 0 means no limit.
	Entries int64 `toml:"entries" comment:"Entries of the tar, which is also how many inodes it can take. 0: no limit."`
	// PathBytes bounds a path or the target of a link, in bytes: 1 to MaxPathBytes.
	PathBytes int64 `toml:"path_bytes" comment:"Length of a path or of a link's target in bytes."`
	// Depth bounds the components of a path; at most MaxPathBytes; 0
	// means no limit but PathBytes.
	Depth int64 `toml:"depth" comment:"Components of a path. 0: no limit but path_bytes."`
	// NameBytes bounds one component of a path, in bytes: 1 to MaxNameBytes.
	NameBytes int64 `toml:"name_bytes" comment:"Length of one component of a path in bytes, at most 255."`
	// XattrBytes bounds the extended attributes of one entry, names and values, in
	// bytes: 1 to MaxXattrBytes.
	XattrBytes int64 `toml:"xattr_bytes" comment:"Extended attributes of one entry in bytes, names included."`
	// Ratio bounds the uncompressed bytes for one compressed byte, in layers over
	// 64 MiB; 0 means no limit.
	Ratio int64 `toml:"ratio" comment:"Uncompressed bytes for one compressed byte, once a layer is over 64 MiB. 0: no limit."`
}

// DefaultLimits returns limits far over what images have and far below what
// hurts a node. They are those of archive.DefaultLimits.
func DefaultLimits() Limits {
	return Limits{
		Bytes:      256 << 30,
		Entries:    10_000_000,
		PathBytes:  64 << 10,
		Depth:      4096,
		NameBytes:  MaxNameBytes,
		XattrBytes: 1 << 20,
		Ratio:      1100, // deflate ends at 1032
	}
}

// Validate checks the limits alone, for what is compiled into containerd. The
// error is InvalidArgument and names all keys that are wrong.
func (l Limits) Validate() error {
	var p problems
	p.limits("", l)
	return p.err()
}

func (p *problems) limits(prefix string, l Limits) {
	p.number(prefix+"bytes", l.Bytes, 0, math.MaxInt64)
	p.number(prefix+"entries", l.Entries, 0, math.MaxInt64)
	p.number(prefix+"path_bytes", l.PathBytes, 1, MaxPathBytes)
	p.number(prefix+"depth", l.Depth, 0, MaxPathBytes) // a component is a byte at least
	p.number(prefix+"name_bytes", l.NameBytes, 1, MaxNameBytes)
	p.number(prefix+"xattr_bytes", l.XattrBytes, 1, MaxXattrBytes)
	p.number(prefix+"ratio", l.Ratio, 0, math.MaxInt64)
}

func (p *problems) number(key string, value, least, most int64) {
	if value < least || value > most {
		p.add("%s is %d: it has to be between %d and %d", key, value, least, most)
	}
}
