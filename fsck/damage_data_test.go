// SPDX-License-Identifier: Apache-2.0

package fsck_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/fsck"
)

// fill puts an entry of every kind into an upper directory.
func (f *fixture) fill(upper string) {
	at := func(name string) string { return filepath.Join(upper, name) }
	f.must(
		os.Mkdir(at("d"), 0o755), os.WriteFile(at("d/file"), []byte("content"), 0o644), os.WriteFile(at("d/empty"), nil, 0o600),
		os.Mkdir(at("d/sub"), 0o700), os.WriteFile(at("d/sub/large"), []byte(strings.Repeat("large", 60_000)), 0o755),
		os.Link(at("d/file"), at("hard")), os.Symlink("d/file", at("soft")),
		unix.Mkfifo(at("pipe"), 0o600), unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		unix.Mknod(at("gone"), unix.S_IFCHR, 0),
		unix.Setxattr(at("d"), "trusted.overlay.origin", []byte{}, 0), unix.Setxattr(at("d/sub"), "trusted.overlay.opaque", []byte("y"), 0),
		unix.Setxattr(at("d/file"), "trusted.test", []byte("value"), 0),
	)
	hole, err := os.Create(at("hole"))
	f.must(err, os.Truncate(at("hole"), 1<<19))
	_, err = hole.WriteAt([]byte("in the middle"), 1<<18)
	f.must(err, hole.Close())
}

// still keeps the time of a path and of the directory that it is in, so that nothing but
// what do does is found.
func (f *fixture) still(path string, do func(path string)) {
	var entry, dir unix.Stat_t
	f.must(unix.Lstat(path, &entry), unix.Lstat(filepath.Dir(path), &dir))
	do(path)
	for p, st := range map[string]unix.Stat_t{path: entry, filepath.Dir(path): dir} {
		err := unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
		if err != nil && !os.IsNotExist(err) {
			f.t.Fatal(err)
		}
	}
}

// changed is a damage to one entry of the topmost layer.
func changed(name, code, entry string, do func(f *fixture, path string) error) damage {
	d := lasting(name, code, func(f *fixture) {
		f.still(f.at("layers", f.top, "fs", entry), func(path string) { f.must(do(f, path)) })
	})
	d.data = true
	return d
}

func overwrite(at int64, text string) func(*fixture, string) error {
	return func(f *fixture, path string) error {
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		f.must(err)
		_, err = file.WriteAt([]byte(text), at)
		f.must(err)
		return file.Close()
	}
}

// anew puts something else in the place of an entry.
func anew(make func(path string) error) func(*fixture, string) error {
	return func(f *fixture, path string) error {
		f.must(os.RemoveAll(path))
		return make(path)
	}
}

func mknod(mode uint32, major, minor uint32) func(string) error {
	return func(path string) error { return unix.Mknod(path, mode, int(unix.Mkdev(major, minor))) }
}

func dataDamages() []damage {
	return []damage{
		changed("a byte of a file", "data-content", "d/file", overwrite(3, "T")),
		changed("a byte far into a file", "data-content", "d/sub/large", overwrite(299_999, "T")),
		changed("a byte beside a hole", "data-content", "hole", overwrite(1<<18, "I")),
		changed("a byte in a hole", "data-content", "hole", overwrite(1<<16, "x")),
		changed("a file without its end", "data-size", "d/sub/large", func(_ *fixture, path string) error { return os.Truncate(path, 4096) }),
		changed("an empty file that is not", "data-size", "d/empty", overwrite(0, "x")),
		changed("a file is gone", "data-missing", "d/empty", func(_ *fixture, path string) error { return os.Remove(path) }),
		changed("a whiteout is gone", "data-missing", "gone", func(_ *fixture, path string) error { return os.Remove(path) }),
		changed("a file that was not there", "data-unexpected", "d/sub", func(f *fixture, path string) error {
			f.still(path, func(string) { f.must(os.WriteFile(filepath.Join(path, "new"), nil, 0o600)) })
			return nil
		}),
		changed("a directory that was not there", "data-unexpected", "d/sub", func(f *fixture, path string) error {
			f.still(path, func(string) { f.must(os.MkdirAll(filepath.Join(path, "new/deep"), 0o755)) })
			return nil
		}),
		changed("a file where a pipe was", "data-type", "pipe", anew(func(path string) error { return os.WriteFile(path, nil, 0o600) })),
		changed("another device", "data-type", "null", anew(mknod(unix.S_IFCHR|0o666, 1, 5))),
		changed("a device for a whiteout", "data-type", "gone", anew(mknod(unix.S_IFCHR, 1, 3))),
		changed("mode of a file", "data-mode", "d/file", func(_ *fixture, path string) error { return os.Chmod(path, 0o4755) }),
		changed("mode of the root", "data-mode", "", func(_ *fixture, path string) error { return os.Chmod(path, 0o700) }),
		changed("owner of a directory", "data-owner", "d/sub", func(_ *fixture, path string) error { return os.Chown(path, 3, 4) }),
		changed("owner of a link", "data-owner", "soft", func(_ *fixture, path string) error { return os.Lchown(path, 3, 4) }),
		changed("an attribute is gone", "data-xattr", "d/sub", func(_ *fixture, path string) error { return unix.Removexattr(path, "trusted.overlay.opaque") }),
		changed("an attribute too many", "data-xattr", "d/empty", func(_ *fixture, path string) error {
			return unix.Setxattr(path, "trusted.overlay.metacopy", nil, 0)
		}),
		changed("another value of an attribute", "data-xattr", "d/file", func(_ *fixture, path string) error {
			return unix.Setxattr(path, "trusted.test", []byte("Value"), 0)
		}),
		changed("a link that leads elsewhere", "data-link", "soft", anew(func(path string) error { return os.Symlink("d/filf", path) })),
		changed("a hard link that is a copy", "data-link", "hard", anew(func(path string) error { return os.WriteFile(path, []byte("content"), 0o644) })).with("data-xattr", nil),
		lasting("time of a file", "data-mtime", func(f *fixture) {
			f.must(os.Chtimes(f.at("layers", f.top, "fs/d/file"), time.Time{}, time.Unix(1, 1)))
		}).ofData(),
		lasting("an index with another byte", "index-damaged", func(f *fixture) {
			f.must(overwrite(30, "\xff")(f, f.at("layers", f.top, "index")))
		}).ofData(),
		lasting("an index cut off", "index-damaged", func(f *fixture) { f.must(os.Truncate(f.at("layers", f.top, "index"), 90)) }).ofData(),
		lasting("no index", "index-absent", func(f *fixture) { f.must(os.Remove(f.at("layers", f.base, "index"))) }).ofData(),
	}
}

func (d damage) ofData() damage {
	d.data = true
	return d
}

// many entries are counted, and not all of them named.
func manyDamages() []damage {
	d := lasting("many files", "data-unexpected", func(f *fixture) {
		f.still(f.at("layers", f.top, "fs/d"), func(path string) {
			for i := range 1000 {
				f.must(os.WriteFile(filepath.Join(path, strconv.Itoa(i)), nil, 0o600))
			}
		})
	}).ofData()
	d.after = func(f *fixture, r *fsck.Report) {
		if text := r.Findings[0].Message; !strings.Contains(text, "997 more") || len(text) > 500 {
			f.t.Errorf("the message is %q", text)
		}
	}
	return []damage{d}
}
