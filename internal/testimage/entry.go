// SPDX-License-Identifier: Apache-2.0

package testimage

import (
	"archive/tar"
	"path"
	"time"
)

// Names that the OCI image specification gives to deletions ("Layers", section
// "Representing Changes").
const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
)

// epoch is the modification time of every entry. A fixed one keeps digests stable.
var epoch = time.Unix(1_700_000_000, 0).UTC()

// Entry is one member of a layer's tar stream.
type Entry struct {
	Header  tar.Header
	Content []byte
}

// Layer lists a layer's entries in the order of its tar stream. An empty Layer is a
// valid image layer that changes nothing.
type Layer []Entry

// Dir is a directory with mode 0755, owned by root.
func Dir(name string) Entry {
	return Entry{Header: header(name+"/", tar.TypeDir, 0o755)}
}

// File is a regular file with mode 0644, owned by root.
func File(name, content string) Entry {
	return Entry{Header: header(name, tar.TypeReg, 0o644), Content: []byte(content)}
}

// Program is an executable file with mode 0755, owned by root.
func Program(name string, content []byte) Entry {
	return Entry{Header: header(name, tar.TypeReg, 0o755), Content: content}
}

// Symlink is a symbolic link that holds target as it is given.
func Symlink(name, target string) Entry {
	h := header(name, tar.TypeSymlink, 0o777)
	h.Linkname = target
	return Entry{Header: h}
}

// Hardlink is another name for target, a path from the image's root.
func Hardlink(name, target string) Entry {
	h := header(name, tar.TypeLink, 0o644)
	h.Linkname = target
	return Entry{Header: h}
}

// Whiteout deletes name, a file or a whole directory, as it was in the layers below.
func Whiteout(name string) Entry {
	dir, base := path.Split(name)
	return File(dir+whiteoutPrefix+base, "")
}

// Opaque hides everything that the layers below have in dir. The directory itself
// needs an entry of its own.
func Opaque(dir string) Entry {
	return File(path.Join(dir, opaqueMarker), "")
}

// Mode gives a copy of the entry with other permission bits (octal, as in chmod,
// set-id and sticky bits included).
func (e Entry) Mode(bits int64) Entry {
	e.Header.Mode = bits
	return e
}

// Owner gives a copy of the entry that belongs to uid and gid.
func (e Entry) Owner(uid, gid int) Entry {
	e.Header.Uid, e.Header.Gid = uid, gid
	return e
}

func header(name string, kind byte, mode int64) tar.Header {
	return tar.Header{Name: name, Typeflag: kind, Mode: mode, ModTime: epoch, Format: tar.FormatPAX}
}
