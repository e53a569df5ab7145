// SPDX-License-Identifier: Apache-2.0

package imagemount

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sys/unix"
)

// Kind is what has become of a path, in the letters of `docker diff`.
type Kind string

const (
	// Added means that it was not in the image.
	Added Kind = "A"
	// Changed means content, metadata or, of a directory, what is in it.
	Changed Kind = "C"
	// Deleted means with all that was in it.
	Deleted Kind = "D"
)

// Change is one changed path, which begins with a slash.
type Change struct {
	Kind Kind   `json:"kind"`
	Path string `json:"path"`
}

// Names in a layer tar that stand for deletions (OCI image-spec, layer.md).
const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
)

// Tar writes what a snapshot changed as an uncompressed layer. begin gives the writer; it
// is called again where the first attempt has to be given up, which makes what was
// written before worthless. Errors are those of Find.
func (m *Manager) Tar(ctx context.Context, target string, begin func() (io.Writer, error)) error {
	ctx = m.store.Context(ctx)
	s, err := m.writable(ctx, target)
	if err != nil {
		return err
	}
	return m.compare(ctx, s, func(ctx context.Context, lower, upper []mount.Mount) error {
		return m.store.Differ().Tar(ctx, lower, upper, begin)
	})
}

// compare calls do with the mounts of a snapshot and of what it stands on.
func (m *Manager) compare(ctx context.Context, s Snapshot, do func(ctx context.Context, lower, upper []mount.Mount) error) (err error) {
	if err := settle(s); err != nil {
		return err
	}
	ctx, done, err := m.store.Lease(ctx)
	if err != nil {
		return err
	}
	defer func() { done(&err) }()
	sn := m.store.Snapshotter()
	upper, err := sn.Mounts(ctx, s.Name)
	if err != nil {
		return fmt.Errorf("snapshot %q: %w", s.Name, err)
	}
	key := "compare-" + newName()
	lower, err := sn.View(ctx, key, s.info.Parent, snapshots.WithLabels(nil))
	if err != nil {
		return fmt.Errorf("what snapshot %q stands on: %w", s.Name, err)
	}
	defer func() { err = errors.Join(err, sn.Remove(context.WithoutCancel(ctx), key)) }()
	return do(ctx, lower, upper)
}

// settle makes the changes of a mounted snapshot reach its directory: fuse-overlayfs
// keeps them in memory for a while.
func settle(s Snapshot) (err error) {
	if s.State != Mounted {
		return nil
	}
	dir, err := os.Open(s.Dir)
	if err != nil {
		return fmt.Errorf("open the mount of snapshot %q: %w", s.Name, err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("sync the mount of snapshot %q: %w", s.Name, err)
	}
	return nil
}

// Changes returns the paths that a snapshot changed, sorted. What is in a directory that
// was deleted is not listed. Errors are those of Find.
func (m *Manager) Changes(ctx context.Context, target string) (list []Change, err error) {
	ctx = m.store.Context(ctx)
	s, err := m.writable(ctx, target)
	if err != nil {
		return nil, err
	}
	err = m.compare(ctx, s, func(ctx context.Context, lower, upper []mount.Mount) error {
		return mount.WithReadonlyTempMount(ctx, lower, func(root string) (err error) {
			below, err := openBelow(root)
			if err != nil {
				return err
			}
			// Before the unmount, which an open directory makes fail.
			defer func() { err = errors.Join(err, below.dir.Close()) }()
			list, err = m.changes(ctx, lower, upper, below)
			return err
		})
	})
	return list, err
}

// changes reads the layer that lower and upper differ by, while it is written.
func (m *Manager) changes(ctx context.Context, lower, upper []mount.Mount, below below) ([]Change, error) {
	var c *collector
	var attempts []*collector
	err := m.store.Differ().Tar(ctx, lower, upper, func() (io.Writer, error) {
		c = newCollector(below)
		attempts = append(attempts, c)
		return c.w, nil
	})
	for _, a := range attempts {
		if endErr := a.end(err); err == nil && a == c {
			err = endErr
		}
	}
	if err != nil || c == nil {
		return nil, err
	}
	return c.list()
}

// collector reads a layer's entries from a pipe.
type collector struct {
	below  below
	w      *io.PipeWriter
	done   chan error
	kinds  map[string]Kind // by path, without a slash at the begin
	opaque []string
}

func newCollector(below below) *collector {
	r, w := io.Pipe()
	c := &collector{below: below, w: w, done: make(chan error, 1), kinds: map[string]Kind{}}
	go func() {
		err := c.read(tar.NewReader(r))
		if err == nil { // what comes after the last entry
			_, err = io.Copy(io.Discard, r)
		}
		c.done <- errors.Join(err, r.CloseWithError(err))
	}()
	return c
}

// end waits until everything is read. failure is why it is not all, if it isn't.
func (c *collector) end(failure error) error {
	_ = c.w.CloseWithError(failure) // always nil (io.PipeWriter)
	return <-c.done
}

func (c *collector) read(entries *tar.Reader) error {
	for {
		h, err := entries.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := c.entry(strings.Trim(path.Clean("/"+h.Name), "/")); err != nil {
			return err
		}
	}
}

func (c *collector) entry(name string) error {
	dir, base := path.Split(name)
	switch {
	case name == "":
		return nil
	case base == opaqueMarker:
		c.opaque = append(c.opaque, path.Clean(dir))
		return nil
	case strings.HasPrefix(base, whiteoutPrefix):
		c.kinds[dir+strings.TrimPrefix(base, whiteoutPrefix)] = Deleted
		return nil
	}
	there, err := c.below.has(name)
	if err != nil {
		return err
	}
	c.kinds[name] = Added
	if there {
		c.kinds[name] = Changed
	}
	return nil
}

// list adds what opaque directories hide, and sorts.
func (c *collector) list() ([]Change, error) {
	for _, dir := range c.opaque {
		if err := c.hidden(dir); err != nil {
			return nil, err
		}
	}
	list := make([]Change, 0, len(c.kinds))
	for name, kind := range c.kinds {
		list = append(list, Change{Kind: kind, Path: "/" + name})
	}
	slices.SortFunc(list, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return list, nil
}

// hidden notes what is in a directory of the image and not in the one that replaced it.
func (c *collector) hidden(dir string) error {
	names, err := c.below.names(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		full := path.Join(dir, name)
		if _, there := c.kinds[full]; !there {
			c.kinds[full] = Deleted
		} else if err := c.hidden(full); err != nil {
			return err
		}
	}
	return nil
}
