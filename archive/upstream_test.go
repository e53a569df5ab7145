// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	ctdarchive "github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/pkg/archive/tartest"
	"github.com/containerd/continuity/fs"
	"github.com/containerd/continuity/fs/fstest"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/layertest"
)

// TestFSSuite runs continuity's suite: each step's change to a directory becomes
// a layer by containerd's own differ, and the image so far must look like the
// directory. Without parents, the layers have no entries for directories that
// did not change, as other builders make them.
func TestFSSuite(t *testing.T) {
	for _, order := range orders {
		for name, rewrite := range map[string]func([]byte, string) ([]byte, error){
			"with parents":    func(blob []byte, _ string) ([]byte, error) { return blob, nil },
			"without parents": dropParents,
		} {
			t.Run(order.name+" "+name, func(t *testing.T) {
				fstest.FSSuite(t, &suite{h: kernelHouse(t), order: order.chain, rewrite: rewrite})
			})
		}
	}
}

// suite is continuity's fstest.TestApplier on our applier.
type suite struct {
	h       *house
	order   func(*house, [][]byte) (chain, error)
	rewrite func(blob []byte, base string) ([]byte, error)
	blobs   [][]byte
}

func (s *suite) TestContext(ctx context.Context) (context.Context, func(), error) {
	s.blobs = nil
	return ctx, func() {}, nil
}

func (s *suite) Apply(ctx context.Context, change fstest.Applier) (string, func(), error) {
	blob, err := s.layer(ctx, change)
	if err != nil {
		return "", nil, err
	}
	s.blobs = append(s.blobs, blob)
	stack, err := s.order(s.h, s.blobs)
	if err != nil {
		return "", nil, err
	}
	mounts, err := s.h.plan(stack).Mounts()
	if err != nil {
		return "", nil, err
	}
	target, err := s.h.mkdir("show")
	if err != nil {
		return "", nil, err
	}
	if err := mount.All(mounts, target); err != nil {
		return "", nil, err
	}
	return target, func() { _ = mount.UnmountAll(target, 0) }, nil // a leak fails the test
}

// layer makes a layer of a change to a copy of the image so far.
func (s *suite) layer(ctx context.Context, change fstest.Applier) (blob []byte, err error) {
	stack, err := s.order(s.h, s.blobs)
	if err != nil {
		return nil, err
	}
	upper, err := s.h.mkdir("copy")
	if err != nil {
		return nil, err
	}
	err = s.h.view(stack, func(root string) error {
		if err := fs.CopyDir(upper, root); err != nil {
			return err
		}
		if err := change.Apply(upper); err != nil {
			return err
		}
		var buf bytes.Buffer
		if err := ctdarchive.WriteDiff(ctx, &buf, root, upper); err != nil {
			return err
		}
		blob, err = s.rewrite(buf.Bytes(), root)
		return err
	})
	return blob, err
}

// dropParents leaves out the entries of directories that base has just so.
func dropParents(blob []byte, base string) ([]byte, error) {
	var out bytes.Buffer
	tw := tar.NewWriter(&out)
	for tr := tar.NewReader(bytes.NewReader(blob)); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out.Bytes(), tw.Close()
		}
		if err != nil {
			return nil, err
		}
		var st unix.Stat_t
		if h.Typeflag == tar.TypeDir && unix.Lstat(filepath.Join(base, h.Name), &st) == nil &&
			int64(st.Mode) == int64(unix.S_IFDIR)|h.Mode && int(st.Uid) == h.Uid && int(st.Gid) == h.Gid {
			continue
		}
		if err := tw.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := io.Copy(tw, tr); err != nil {
			return nil, err
		}
	}
}

// TestTartest builds layers with containerd's public test writer.
func TestTartest(t *testing.T) {
	at := time.Unix(layertest.Epoch, 0)
	tc := tartest.TarContext{}.WithUIDGID(5, 6).WithModTime(at)
	const tail = " 5:6 mtime=1000000000"
	for _, c := range []struct {
		name   string
		layers []tartest.WriterToTar
		want   layertest.Tree
	}{
		{
			"all kinds", []tartest.WriterToTar{tartest.TarAll(
				tc.Dir("d", 0o750), tc.File("d/f", []byte("data"), 0o640), tc.Symlink("f", "d/l"), tc.Link("d/f", "h"),
			)},
			layertest.Tree{
				"/": "dir 0755 0:0 mtime=NOW", "/d": "dir 0750" + tail, "/d/l": "symlink->f 0777" + tail,
				"/d/f": `file["data"] 0777` + tail + " link{/d/f,/h}", "/h": `file["data"] 0777` + tail + " link{/d/f,/h}",
			},
		},
		{
			"set-id modes", []tartest.WriterToTar{tartest.TarAll(
				tc.File("s", nil, 0o755|os.ModeSetuid), tc.Dir("t", 0o777|os.ModeSticky),
			)},
			layertest.Tree{"/": "dir 0755 0:0 mtime=NOW", "/s": `file[""] 4755` + tail, "/t": "dir 1777" + tail},
		},
		{
			"attributes", []tartest.WriterToTar{tc.WithXattrs(map[string]string{"user.key": "value"}).File("f", nil, 0o755)},
			layertest.Tree{"/": "dir 0755 0:0 mtime=NOW", "/f": `file[""] 0755` + tail + ` x{user.key="value"}`},
		},
		{
			"whiteouts in the next layer", []tartest.WriterToTar{
				tartest.TarAll(tc.Dir("d", 0o755), tc.File("d/a", nil, 0o644), tc.File("b", nil, 0o644), tc.Dir("e", 0o755), tc.File("e/x", nil, 0o644)),
				tartest.TarAll(tc.File("d/.wh.a", nil, 0), tc.File(".wh.b", nil, 0), tc.File("e/.wh..wh..opq", nil, 0), tc.File("e/y", nil, 0o644)),
			},
			layertest.Tree{"/": "dir 0755 0:0 mtime=NOW", "/d": "dir 0755" + tail, "/e": "dir 0755" + tail, "/e/y": `file[""] 0644` + tail},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var blobs [][]byte
			for _, w := range c.layers {
				blob, err := readAll(tartest.TarFromWriterTo(w))
				must(t, err)
				blobs = append(blobs, blob)
			}
			for _, order := range orders {
				h := kernelHouse(t)
				stack, err := order.chain(h, blobs)
				must(t, err)
				got, err := h.tree(stack)
				must(t, err)
				if diffs := c.want.Diff(got); len(diffs) > 0 {
					t.Errorf("%s:\n%s", order.name, strings.Join(diffs, "\n"))
				}
			}
		})
	}
}

func readAll(r io.ReadCloser) (data []byte, err error) {
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(r)
}

// TestAgreesWithContainerd holds the images of testdata/merge against what
// containerd's applier makes of them on one directory, but for where it says
// that they differ.
func TestAgreesWithContainerd(t *testing.T) {
	for _, c := range readMergeCases(t) {
		if c.Deliberate != "" || c.Expect.Error || c.ID == aufsCase || c.ID == "xattr-user-overlay" {
			continue
		}
		t.Run(c.ID, func(t *testing.T) {
			h := kernelHouse(t)
			blobs, err := tars(c.Layers)
			must(t, err)
			flat, err := h.mkdir("flat")
			must(t, err)
			for i, blob := range blobs {
				if _, err := ctdarchive.Apply(context.Background(), flat, bytes.NewReader(blob)); err != nil {
					t.Fatal(fmt.Errorf("layer %d: %w", i, err))
				}
			}
			theirs, err := layertest.Dump(flat)
			must(t, err)
			stack, err := h.parallel(blobs)
			must(t, err)
			ours, err := h.tree(stack)
			must(t, err)
			c.compare(t, forgiving(theirs), ours)
		})
	}
}

// forgiving takes the times out of a tree, for which testdata/merge has the rules.
func forgiving(tree layertest.Tree) layertest.Tree {
	for path, line := range tree {
		head, rest, _ := strings.Cut(line, " mtime=")
		_, tail, ok := strings.Cut(rest, " ")
		tree[path] = head + " mtime=" + layertest.Now
		if ok {
			tree[path] += " " + tail
		}
	}
	return tree
}
