// SPDX-License-Identifier: Apache-2.0

package layerindex

import "strings"

// Type is what an entry is.
type Type byte

// Types of entries. The values are those of the format.
const (
	Regular Type = iota + 1
	Dir
	Symlink
	Char
	Block
	Fifo
	Socket
	// Whiteout is a character device 0:0. Nothing else of it means anything.
	Whiteout
	// Link is one more name of a file that has a record of its own.
	Link
)

var typeNames = [...]string{"nothing", "a file", "a directory", "a symbolic link", "a character device", "a block device", "a pipe", "a socket", "a whiteout", "a hard link"}

// String names the type, with its article.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return "unknown"
}

// Record is one entry of a layer.
type Record struct {
	// Path is slash separated, relative to the layer's root and clean: "" is the root.
	Path string
	Type Type
	// Sparse says that Sum leaves out blocks of zeros, see Hash.
	Sparse bool
	// Mode is the permission bits, setuid, setgid and sticky.
	Mode     uint32
	UID, GID uint32
	// Sec and Nsec are the time of the last modification, since 1970.
	Sec, Nsec int64
	// Size in bytes and Sum, the checksum of the content, are those of a file.
	Size int64
	Sum  uint64
	// Major and Minor are those of a device.
	Major, Minor uint32
	// Link is where a symbolic link leads, and the path of the file that a hard link
	// is another name of.
	Link string
	// Xattrs are in the order of their names. See IsRecorded.
	Xattrs []Xattr
}

// Xattr is an extended attribute: its value by length, in bytes, and checksum.
type Xattr struct {
	Name string
	Size int
	Sum  uint64
}

// hasAttrs says whether a record of the type has mode, owner, time and attributes.
func (t Type) hasAttrs() bool { return t != Whiteout && t != Link }

// IsRecorded says whether an extended attribute belongs to the layer: what its tar can
// bring, access control lists, and the marks of overlay. The rest is set by security
// modules and file systems of the host, see xattr(7).
func IsRecorded(name string) bool {
	switch {
	case strings.HasPrefix(name, "user."), strings.HasPrefix(name, "trusted."), strings.HasPrefix(name, "system.posix_acl_"):
		return true
	}
	return name == "security.capability"
}
