// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/layertest"
)

// look describes what is at a path, in the words of cases.json.
func (j *hostileJob) look(view, name, want string) string {
	name, err := url.PathUnescape(name)
	if err != nil {
		return err.Error()
	}
	f, err := j.stat(filepath.Join(view, strings.TrimSuffix(name, "#")))
	if err != nil {
		return err.Error()
	}
	kind, _, _ := strings.Cut(want, ":")
	switch kind {
	case "size":
		return fmt.Sprintf("size:%d", f.size)
	case "mode":
		return fmt.Sprintf("mode:%o:%d:%d", f.mode, f.uid, f.gid)
	case "dir":
		return fmt.Sprintf("%s:%o:%d", f.kind, f.mode, f.uid)
	case "file", "sym":
		return f.kind + ":" + f.data
	}
	return f.kind
}

// hostileFile is a file that came of a layer.
type hostileFile struct {
	kind, data string
	mode       uint32
	uid, gid   int
	size       int64
}

func (j *hostileJob) stat(path string) (f hostileFile, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return f, err
	}
	f = hostileFile{mode: st.Mode & 0o7777, uid: int(st.Uid), gid: int(st.Gid), size: st.Size}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		f.kind = "file"
		if st.Size < 1<<20 {
			data, err := os.ReadFile(path)
			if err != nil {
				return f, err
			}
			f.data = string(data)
		}
	case unix.S_IFDIR:
		f.kind = "dir"
	case unix.S_IFLNK:
		f.kind = "sym"
		f.data, err = os.Readlink(path)
	case unix.S_IFIFO:
		f.kind = "fifo"
	case unix.S_IFBLK:
		f.kind = fmt.Sprintf("blk:%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	if err == nil && j.mode.options.OverrideStat && f.kind != "sym" {
		err = f.override(path)
	}
	return f, err
}

// override reads what the mode without privilege keeps in an attribute.
func (f *hostileFile) override(path string) error {
	xattrs, err := layertest.Xattrs(path)
	if err != nil {
		return err
	}
	var kind string
	text := string(xattrs[overrideXattr])
	if _, err := fmt.Sscanf(strings.ReplaceAll(text, ":", " "), "%d %d %o %s", &f.uid, &f.gid, &f.mode, &kind); err != nil {
		return fmt.Errorf("%s is %q: %w", overrideXattr, text, err)
	}
	switch {
	case kind == "pipe":
		f.kind = "fifo"
	case strings.HasPrefix(kind, "block-"):
		f.kind = "blk:" + strings.ReplaceAll(strings.TrimPrefix(kind, "block-"), "-", ":")
	case kind != f.kind:
		return fmt.Errorf("%s says %s, and it is a %s", overrideXattr, kind, f.kind)
	}
	return nil
}

const overrideXattr = "user.containers.override_stat"

// checkXattrs checks that no attribute of the tar got through that means
// something: not in the view, where overlay hides its own, but in the layer.
func (j *hostileJob) checkXattrs() []string {
	if j.c.Expect != skip {
		return nil
	}
	name := strings.ReplaceAll(strings.TrimPrefix(j.c.ID, "xa-"), "-", ".")
	privileged := j.mode.name == "privileged"
	found := false
	layer := "layer1"
	if j.mode.onto {
		layer = "upper1"
	}
	for _, file := range []string{"d", "d/f", "f"} {
		xattrs, err := layertest.Xattrs(filepath.Join(sandbox, layer, file))
		if err != nil {
			continue
		}
		_, ok := xattrs[name]
		if name == "override" {
			ok = string(xattrs[overrideXattr]) == "0:0:4755:file"
		}
		found = found || ok
	}
	// With privilege, user.* is data like any other.
	if wanted := privileged && !strings.HasPrefix(name, "trusted."); found != wanted {
		return []string{fmt.Sprintf("WRONG: the attribute is there: %v", found)}
	}
	return nil
}
