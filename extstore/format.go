// SPDX-License-Identifier: Apache-2.0

package extstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/overlayutil"
	"golang.org/x/sys/unix"
)

const (
	storeFile = "strata-store.json"
	layersDir = "layers"
	blobsDir  = "blobs"

	fsName    = "fs"
	layerFile = "layer.json"
	indexFile = "index"

	storeFormat = "strata-layers"
	layerFormat = "directory"

	// version is what is written, and the newest that is understood.
	version = 1

	// maxFile bounds what is read into memory. A layer can need many directories.
	maxFile = 256 << 20
)

// storeInfo is strata-store.json.
type storeInfo struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
}

func (s storeInfo) check() error {
	return checkFormat(s.Format, s.Version, storeFormat)
}

func checkFormat(format string, v int, want string) error {
	if format != want {
		return fmt.Errorf("format %q is not %q", format, want)
	}
	if v < 1 || v > version {
		return fmt.Errorf("version %d is not known, this program knows up to %d", v, version)
	}
	return nil
}

// manifest is layer.json.
type manifest struct {
	Format     string        `json:"format"`
	Version    int           `json:"version"`
	DiffID     digest.Digest `json:"diffID"`
	Size       int64         `json:"size,omitempty"` // of the tar
	Bytes      int64         `json:"bytes"`
	Inodes     int64         `json:"inodes"`
	Empty      bool          `json:"empty,omitempty"`
	OpaqueRoot bool          `json:"opaqueRoot,omitempty"`
	Needs      archive.Needs `json:"needs"`
	// Xattrs is the namespace of overlay's marks: "trusted" or "user".
	Xattrs  string          `json:"xattrs"`
	Created time.Time       `json:"created"`
	Tree    treeDigests     `json:"tree"`
	Blobs   []digest.Digest `json:"blobs,omitempty"`
}

// treeDigests are what a layer's content is verified by.
type treeDigests struct {
	Metadata digest.Digest `json:"metadata"`
	Full     digest.Digest `json:"full"`
}

var namespaces = map[string]overlayutil.XattrNamespace{"trusted": overlayutil.Trusted, "user": overlayutil.User}

func namespaceName(ns overlayutil.XattrNamespace) string {
	for name, known := range namespaces {
		if known == ns {
			return name
		}
	}
	return string(ns)
}

// check says why the manifest can't be that of diffID.
func (m *manifest) check(diffID digest.Digest) error {
	if err := checkFormat(m.Format, m.Version, layerFormat); err != nil {
		return err
	}
	switch {
	case m.DiffID != diffID:
		return fmt.Errorf("it says it is layer %q", m.DiffID)
	case m.Bytes < 0 || m.Inodes < 1 || m.Size < 0:
		return fmt.Errorf("a usage of %d bytes and %d inodes makes no sense", m.Bytes, m.Inodes)
	case m.Needs.Mounted != "":
		return errors.New("it can only be extracted onto the layers of one image")
	case namespaces[m.Xattrs] == "":
		return fmt.Errorf("attribute namespace %q is not known", m.Xattrs)
	}
	return nil
}

func (m *manifest) layer() Layer {
	return Layer{
		DiffID: m.DiffID, Size: m.Size, Bytes: m.Bytes, Inodes: m.Inodes, Empty: m.Empty, OpaqueRoot: m.OpaqueRoot,
		Needs: m.Needs, Xattrs: namespaces[m.Xattrs], Created: m.Created, Blobs: m.Blobs,
	}
}

// Layer is a layer of a store: what Export takes and Lookup finds.
type Layer struct {
	// DiffID is the digest of the layer's uncompressed tar.
	DiffID digest.Digest
	// Size is the length of that tar in bytes, 0 if it is not known.
	Size int64
	// Dir is the overlay layer directory, open for reading.
	Dir *os.File
	// Bytes and Inodes are what the directory takes where it was extracted: hard
	// links once, holes not, the directory itself included.
	Bytes, Inodes int64
	// Empty: no entries. OpaqueRoot: everything below is hidden.
	Empty, OpaqueRoot bool
	// Needs is what only the layers below can answer. A layer with Needs.Mounted
	// belongs to one image and has no place in a store.
	Needs archive.Needs
	// Xattrs is the namespace of overlay's marks in Dir.
	Xattrs overlayutil.XattrNamespace
	// Blobs are known to unpack to the layer.
	Blobs []digest.Digest
	// Created is when the layer was extracted.
	Created time.Time
	// StillThere, if set, is asked by Export when all of Dir has been read: an error
	// ends the export. Who else may remove the layer meanwhile would leave a part of it
	// to be copied.
	StillThere func() error
	// Store is the path of the store it was found in, as configured, and Path
	// where Dir is below it. Export does not look at them.
	Store, Path string
}

// Close closes Dir.
func (l *Layer) Close() error { return l.Dir.Close() }

// layerPath is where a layer lies in a store. The digest is a valid one.
func layerPath(diffID digest.Digest) string {
	return layersDir + "/" + digestPath(diffID)
}

func digestPath(d digest.Digest) string {
	return d.Algorithm().String() + "/" + d.Encoded()
}

// validate refuses digests that would not be a path, "" among them.
func validate(what string, d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("%s %q is no digest: %w (%w)", what, d, err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// readJSON reads a small file and returns what it was.
func readJSON(dir *os.File, rel string, v any) (st unix.Stat_t, err error) {
	b, st, err := readFile(dir, rel)
	if err != nil {
		return st, err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return st, &damage{fmt.Errorf("%s can't be read: %w", rel, err)}
	}
	return st, nil
}

func readFile(dir *os.File, rel string) (b []byte, st unix.Stat_t, err error) {
	// Without O_NONBLOCK a fifo of that name would be waited at.
	f, err := openIn(dir, rel, unix.O_RDONLY|unix.O_NONBLOCK, inStore)
	if err != nil {
		return nil, st, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, st, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxFile {
		return nil, st, &damage{fmt.Errorf("%s is not a file of a sensible size", rel)}
	}
	b, err = io.ReadAll(io.LimitReader(f, maxFile))
	return b, st, err
}

// damage is an error of what a file holds, not of reading it.
type damage struct{ err error }

func (d *damage) Error() string { return d.err.Error() }
func (d *damage) Unwrap() error { return d.err }
