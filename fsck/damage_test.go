// SPDX-License-Identifier: Apache-2.0

package fsck_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/metadata"
)

// damage is a way to damage a sound root.
type damage struct {
	name  string
	want  []string // codes that are found
	stays []string // codes that a repair leaves
	data  bool     // found with Options.Data
	do    func(*fixture)
	after func(*fixture, *fsck.Report)
}

func one(name, code string, do func(*fixture)) damage {
	return damage{name: name, want: []string{code}, do: do}
}

// lasting can't be repaired.
func lasting(name, code string, do func(*fixture)) damage {
	return damage{name: name, want: []string{code}, stays: []string{code}, do: do}
}

func damages() []damage {
	return slices.Concat(layoutDamages(), databaseDamages(), recordDamages(), layerDamages(), manifestDamages(), snapshotDamages(), externalDamages(), dataDamages(), manyDamages())
}

func layoutDamages() []damage {
	return []damage{
		one("mode of the root", "dir-mode", func(f *fixture) { f.must(os.Chmod(f.root, 0o755)) }),
		one("owner of layers", "dir-mode", func(f *fixture) { f.must(os.Chown(filepath.Join(f.root, "layers"), 7, 7)) }),
		one("mode of empty", "dir-mode", func(f *fixture) { f.must(os.Chmod(filepath.Join(f.root, "empty"), 0o700)) }),
		one("mode of a layer", "dir-mode", func(f *fixture) { f.must(os.Chmod(f.at("layers", f.top), 0o755)) }),
		one("mode of a snapshot", "dir-mode", func(f *fixture) { f.must(os.Chmod(f.at("snapshots", f.work), 0o777)) }),
		one("no trash", "dir-missing", func(f *fixture) { f.must(os.Remove(filepath.Join(f.root, "trash"))) }),
		one("no empty", "dir-missing", func(f *fixture) { f.must(os.Remove(filepath.Join(f.root, "empty"))) }),
		lasting("staging is a link", "dir-invalid", func(f *fixture) {
			f.must(os.Remove(filepath.Join(f.root, "staging")), os.Symlink("/", filepath.Join(f.root, "staging")))
		}),
		one("something in empty", "empty-used", func(f *fixture) { f.write("empty/file", "x") }),
		one("something in staging", "staging-left", func(f *fixture) { f.write("staging/9000/fs/file", "x") }),
		one("a file in staging", "staging-left", func(f *fixture) { f.write("staging/probe", "x") }),
		one("something in the trash", "trash-left", func(f *fixture) { f.write("trash/3.work/work/x", "x") }),
		one("an unfinished layer.json", "temporary-left", func(f *fixture) { f.write(f.in("layers", f.top, "layer.json.tmp"), "{") }),
		one("an unfinished note", "temporary-left", func(f *fixture) { f.write("external/99.tmp", "{") }),
		lasting("a stranger's file", "unknown-file", func(f *fixture) { f.write("notes.txt", "x") }),
		lasting("a stranger's layer", "unknown-file", func(f *fixture) { f.write("layers/007/fs/x", "x") }),
		lasting("volatile, of this boot", "volatile-left", func(f *fixture) {
			boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
			f.must(err)
			f.write("volatile", string(boot))
		}),
		lasting("volatile, of another boot", "volatile-lost", func(f *fixture) { f.write("volatile", "another") }),
		lasting("mount of nothing known", "mount-unknown", func(f *fixture) {
			f.overlay("snapshots/4000")
			f.must(os.RemoveAll(filepath.Join(f.root, "snapshots/4000")))
		}),
		{
			name: "an orphan in use", want: []string{"mount-unknown", "snapshot-orphan"}, stays: []string{"mount-unknown", "snapshot-orphan"},
			do: func(f *fixture) {
				f.fix(metadata.ReserveFix(5000))
				f.overlay("snapshots/4000")
			},
		},
	}
}

// in is a path relative to the root.
func (f *fixture) in(base string, n uint64, rest string) string {
	return filepath.Join(base, strconv.FormatUint(n, 10), rest)
}

func (f *fixture) write(rel, data string) {
	path := filepath.Join(f.root, rel)
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); err != nil {
		f.must(os.MkdirAll(dir, 0o700))
	}
	f.must(os.WriteFile(path, []byte(data), 0o600))
}

// overlay mounts an overlay with the upperdir dir/fs.
func (f *fixture) overlay(dir string) {
	base := filepath.Join(f.root, dir)
	target := f.t.TempDir()
	f.must(os.MkdirAll(base, 0o700), os.Mkdir(base+"/fs", 0o755), os.Mkdir(base+"/work", 0o711))
	m := mount.Mount{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + f.at("layers", f.base, "fs"), "upperdir=" + base + "/fs", "workdir=" + base + "/work"}}
	f.must(m.Mount(target))
	f.t.Cleanup(func() { f.must(unix.Unmount(target, 0)) })
}

func databaseDamages() []damage {
	put := func(bucket string, k, v []byte) func(*fixture) {
		return func(f *fixture) {
			f.raw(func(tx *bolt.Tx) error { return tx.Bucket([]byte(bucket)).Put(k, v) })
		}
	}
	drop := func(bucket string) func(*fixture) {
		return func(f *fixture) { f.raw(func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte(bucket)) }) }
	}
	first := func(bucket string) func(*fixture) {
		return func(f *fixture) {
			f.raw(func(tx *bolt.Tx) error { return tx.Bucket([]byte(bucket)).Delete(key(tx, bucket, 0)) })
		}
	}
	orphan := func(bucket, of string) func(*fixture) {
		return func(f *fixture) {
			f.raw(func(tx *bolt.Tx) error {
				k := append(key(tx, of, 2), key(tx, "snapshots", 0)...)
				return tx.Bucket([]byte(bucket)).Put(k, []byte{})
			})
		}
	}
	return []damage{
		lasting("no metadata.db", "db-missing", func(f *fixture) { f.must(os.Remove(filepath.Join(f.root, "metadata.db"))) }),
		lasting("metadata.db empty", "db-missing", func(f *fixture) { f.must(os.Truncate(filepath.Join(f.root, "metadata.db"), 0)) }),
		lasting("metadata.db cut off", "db-unreadable", func(f *fixture) { f.must(os.Truncate(filepath.Join(f.root, "metadata.db"), 9000)) }),
		lasting("metadata.db overwritten", "db-unreadable", func(f *fixture) { f.write("metadata.db", strings.Repeat("x", 1<<16)) }),
		lasting("pages overwritten", "db-unreadable", func(f *fixture) {
			file, err := os.OpenFile(filepath.Join(f.root, "metadata.db"), os.O_RDWR, 0)
			f.must(err)
			st, err := file.Stat()
			f.must(err)
			_, err = file.WriteAt(make([]byte, st.Size()-8192), 8192)
			f.must(err, file.Close())
		}),
		one("no reserved mark", "number-unreserved", func(f *fixture) {
			f.raw(func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Delete([]byte("reserved")) })
		}),
		one("a low reserved mark", "number-unreserved", func(f *fixture) { f.fix(metadata.ReserveFix(f.top)) }),
		one("a bad reserved mark", "reserved-unreadable", put("meta", []byte("reserved"), []byte("abc"))),
		one("no names", "db-bucket-missing", drop("names")),
		one("no children", "db-bucket-missing", drop("children")),
		one("no refs", "db-bucket-missing", drop("refs")),
		one("no diffids", "db-bucket-missing", drop("diffids")),
		one("no blobs", "db-bucket-missing", drop("blobs")),
		{
			name: "no snapshots", want: []string{"db-bucket-missing", "snapshot-orphan"}, stays: []string{"db-bucket-missing", "snapshot-orphan"},
			do: drop("snapshots"),
		},
		lasting("another bucket", "db-bucket-unknown", func(f *fixture) {
			f.raw(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("later")); return err })
		}),
		one("a child is missing", "child-missing", first("children")),
		one("a child too many", "child-orphan", orphan("children", "snapshots")),
		one("a child that makes no sense", "index-unreadable", put("children", []byte("abc"), nil)),
		one("a reference is missing", "ref-missing", first("refs")),
		one("a reference too many", "ref-orphan", orphan("refs", "layers")),
		one("a label is missing", "byref-missing", first("byref")),
		one("a label too many", "byref-orphan", orphan("byref", "snapshots")),
		one("a diffID is missing", "diffid-missing", first("diffids")),
		one("a diffID that makes no sense", "index-unreadable", put("diffids", []byte{0xff, 0xff, 1}, []byte("abc"))),
		one("a blob that makes no sense", "blob-unreadable", put("blobs", []byte("abc"), []byte("abc"))),
		one("a name is missing", "name-missing", first("names")),
		one("a name too many", "name-orphan", put("names", []byte("nobody"), []byte("x"))),
		one("a name that leads nowhere", "name-wrong", func(f *fixture) {
			f.raw(func(tx *bolt.Tx) error {
				return tx.Bucket([]byte("names")).Put(key(tx, "names", 0), []byte("x"))
			})
		}),
	}
}

func recordDamages() []damage {
	return []damage{
		lasting("a snapshot that can't be read", "snapshot-unreadable", func(f *fixture) { f.garble("snapshots", 0) }),
		one("a layer that can't be read", "layer-unreadable", func(f *fixture) { f.garble("layers", 0) }),
		one("a layer without a number", "layer-unreadable", func(f *fixture) {
			f.raw(func(tx *bolt.Tx) error { return tx.Bucket([]byte("layers")).Put([]byte("abc"), []byte("x")) })
		}),
		one("a layer that is not recorded", "layer-unknown", func(f *fixture) {
			f.raw(func(tx *bolt.Tx) error { return tx.Bucket([]byte("layers")).Delete(key(tx, "layers", 1)) })
		}),
		one("a shared layer that is not recorded", "layer-unknown", func(f *fixture) {
			f.raw(func(tx *bolt.Tx) error { return tx.Bucket([]byte("layers")).Delete(key(tx, "layers", 0)) })
		}),
		{
			name: "no layers", want: []string{"db-bucket-missing", "layer-unknown", "layer-unknown", "layer-unknown", "layer-unknown"},
			do: func(f *fixture) { f.raw(func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("layers")) }) },
		},
		one("a layer that nobody uses", "layer-unreferenced", func(f *fixture) {
			f.must(exec.Command("cp", "-a", f.at("layers", f.top), f.at("layers", f.top)+"0").Run())
			f.must(os.Chmod(f.at("layers", f.top)+"0", 0o700))
			n := f.top * 10
			f.fix(metadata.ReserveFix(100))
			f.layer(f.top, func(l *metadata.Layer) { l.Number = n })
			b, err := os.ReadFile(f.at("layers", n, "layer.json"))
			f.must(err)
			text := strings.Replace(string(b), `"number": `+strconv.FormatUint(f.top, 10), `"number": `+strconv.FormatUint(n, 10), 1)
			f.write(f.in("layers", n, "layer.json"), text)
		}),
		one("a diffID that leads elsewhere", "diffid-wrong", func(f *fixture) {
			f.raw(func(tx *bolt.Tx) error {
				return tx.Bucket([]byte("diffids")).Put(key(tx, "diffids", 0), []byte("x"))
			})
		}),
		one("a diffID of nobody", "diffid-orphan", func(f *fixture) {
			l := metadata.Layer{Number: 3000, DiffID: digest.FromString("nobody")}
			f.fix(metadata.LayerFixes(l)...)
			f.raw(func(tx *bolt.Tx) error {
				k, _ := tx.Bucket([]byte("layers")).Cursor().Last()
				return tx.Bucket([]byte("layers")).Delete(k)
			})
		}),
		{
			name: "two layers of a diffID", want: []string{"diffid-twice", "manifest-diffid"}, stays: []string{"diffid-twice", "manifest-diffid"},
			do: func(f *fixture) {
				f.raw(func(tx *bolt.Tx) error {
					b := tx.Bucket([]byte("layers"))
					return b.Put(key(tx, "layers", 1), append([]byte{}, b.Get(key(tx, "layers", 0))...))
				})
			},
		},
		{
			name: "two snapshots of a name", want: []string{"name-orphan", "name-twice"}, stays: []string{"name-twice"},
			do: func(f *fixture) { f.snapshot(f.view, func(sn *metadata.Snapshot) { sn.Name = "top" }) },
		},
		{
			name: "no such parent", want: []string{"child-missing", "child-orphan", "parent-missing"}, stays: []string{"parent-missing"},
			do: func(f *fixture) { f.snapshot(f.view, func(sn *metadata.Snapshot) { sn.ParentNumber = 4000 }) },
		},
		{
			name: "a parent that is active", want: []string{"child-missing", "child-orphan", "parent-not-committed"}, stays: []string{"parent-not-committed"},
			do: func(f *fixture) { f.snapshot(f.view, func(sn *metadata.Snapshot) { sn.ParentNumber = f.work }) },
		},
		{
			name: "parents in a circle", want: []string{"child-missing", "parent-cycle"}, stays: []string{"parent-cycle"},
			do: func(f *fixture) { f.snapshot(f.base, func(sn *metadata.Snapshot) { sn.ParentNumber = f.top }) },
		},
		lasting("a view with a patch", "snapshot-invalid", func(f *fixture) {
			f.snapshot(f.ext, func(sn *metadata.Snapshot) { sn.Kind = snapshots.KindView })
		}),
		one("usage of a snapshot", "usage-snapshot", func(f *fixture) {
			f.snapshot(f.top, func(sn *metadata.Snapshot) { sn.Usage.Size += 4096 })
		}),
		one("usage of a layer", "usage-layer", func(f *fixture) {
			f.layer(f.base, func(l *metadata.Layer) { l.Usage.Inodes++ })
		}),
	}
}

// garble makes the record of an entry unreadable.
func (f *fixture) garble(bucket string, i int) {
	f.raw(func(tx *bolt.Tx) error { return tx.Bucket([]byte(bucket)).Put(key(tx, bucket, i), []byte{0xff, 1, 2}) })
}
