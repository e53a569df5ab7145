// SPDX-License-Identifier: Apache-2.0

package layertest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"maps"
	"path"
	"strconv"
	"time"
)

// Epoch is the modification time of entries that say nothing else, in seconds.
const Epoch = 1_000_000_000

// The types of entries.
const (
	TypeFile     = "file"
	TypeDir      = "dir"
	TypeSymlink  = "symlink"
	TypeHardlink = "hardlink"
	TypeChar     = "char"
	TypeBlock    = "block"
	TypeFifo     = "fifo"
)

// Octal is a mode that is text in base 8 in JSON.
type Octal int64

// UnmarshalText reads "0755".
func (o *Octal) UnmarshalText(text []byte) error {
	n, err := strconv.ParseInt(string(text), 8, 64)
	*o = Octal(n)
	return err
}

// MarshalText writes "0755".
func (o Octal) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "%04o", int64(o)), nil
}

// Entry is one member of a layer's tar.
type Entry struct {
	Type   string            `json:"type"`
	Name   string            `json:"name"`
	Link   string            `json:"link,omitempty"`
	Data   string            `json:"data,omitempty"`
	Mode   Octal             `json:"mode"`
	UID    int               `json:"uid"`
	GID    int               `json:"gid"`
	Major  int64             `json:"major,omitempty"`
	Minor  int64             `json:"minor,omitempty"`
	Mtime  int64             `json:"mtime"`
	Nsec   int64             `json:"nsec,omitempty"`
	Xattrs map[string][]byte `json:"xattrs_base64,omitempty"`
}

// GoString keeps what rapid prints short.
func (e Entry) GoString() string {
	link := ""
	if e.Link != "" {
		link = " -> " + e.Link
	}
	data := ""
	if e.Data != "" {
		data = fmt.Sprintf(" %.20q", e.Data)
	}
	return fmt.Sprintf("{%s %s%s%s %04o %d:%d %d.%d %d xattrs}", e.Type, e.Name, link, data,
		int64(e.Mode), e.UID, e.GID, e.Mtime, e.Nsec, len(e.Xattrs))
}

// Layer is the entries of a layer in their order in the tar.
type Layer []Entry

func entry(kind, name string, mode Octal) Entry {
	return Entry{Type: kind, Name: name, Mode: mode, Mtime: Epoch}
}

// File is a regular file, 0644 of root.
func File(name, data string) Entry {
	e := entry(TypeFile, name, 0o644)
	e.Data = data
	return e
}

// Dir is a directory, 0755 of root.
func Dir(name string) Entry { return entry(TypeDir, name, 0o755) }

// Symlink is a symbolic link that holds target.
func Symlink(name, target string) Entry {
	e := entry(TypeSymlink, name, 0o777)
	e.Link = target
	return e
}

// Hardlink is another name for target. Its header says 0644 of root, which the
// file then has.
func Hardlink(name, target string) Entry {
	e := entry(TypeHardlink, name, 0o644)
	e.Link = target
	return e
}

// Fifo is a named pipe.
func Fifo(name string) Entry { return entry(TypeFifo, name, 0o600) }

// Device is a character or block device.
func Device(kind, name string, major, minor int64) Entry {
	e := entry(kind, name, 0o600)
	e.Major, e.Minor = major, minor
	return e
}

// Whiteout deletes name of the layers below.
func Whiteout(name string) Entry {
	dir, base := path.Split(name)
	return entry(TypeFile, dir+".wh."+base, 0)
}

// Opaque hides what the layers below have in dir.
func Opaque(dir string) Entry {
	return entry(TypeFile, path.Join(dir, ".wh..wh..opq"), 0)
}

// Perm returns the entry with another mode.
func (e Entry) Perm(mode Octal) Entry {
	e.Mode = mode
	return e
}

// Owner returns the entry with another owner.
func (e Entry) Owner(uid, gid int) Entry {
	e.UID, e.GID = uid, gid
	return e
}

// At returns the entry with another modification time.
func (e Entry) At(sec, nsec int64) Entry {
	e.Mtime, e.Nsec = sec, nsec
	return e
}

// Xattr returns the entry with an extended attribute more.
func (e Entry) Xattr(name, value string) Entry {
	e.Xattrs = maps.Clone(e.Xattrs)
	if e.Xattrs == nil {
		e.Xattrs = map[string][]byte{}
	}
	e.Xattrs[name] = []byte(value)
	return e
}

var typeflags = map[string]byte{
	TypeFile: tar.TypeReg, TypeDir: tar.TypeDir, TypeSymlink: tar.TypeSymlink, TypeHardlink: tar.TypeLink,
	TypeChar: tar.TypeChar, TypeBlock: tar.TypeBlock, TypeFifo: tar.TypeFifo,
}

// Header returns the entry's tar header.
func (e Entry) Header() *tar.Header {
	h := &tar.Header{
		Typeflag: typeflags[e.Type], Name: e.Name, Linkname: e.Link, Size: int64(len(e.Data)), Mode: int64(e.Mode),
		Uid: e.UID, Gid: e.GID, Devmajor: e.Major, Devminor: e.Minor, ModTime: time.Unix(e.Mtime, e.Nsec),
	}
	if e.Nsec != 0 {
		h.Format = tar.FormatPAX // the others round to seconds
	}
	for name, value := range e.Xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+name] = string(value)
	}
	return h
}

// Tar returns the layer as an uncompressed tar.
func (l Layer) Tar() ([]byte, error) {
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, e := range l {
		if err := tw.WriteHeader(e.Header()); err != nil {
			return nil, fmt.Errorf("entry %q: %w", e.Name, err)
		}
		if _, err := tw.Write([]byte(e.Data)); err != nil {
			return nil, fmt.Errorf("data of %q: %w", e.Name, err)
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
