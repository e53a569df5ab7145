// SPDX-License-Identifier: Apache-2.0

package fsck_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/metadata"
)

func layerDamages() []damage {
	return []damage{
		{
			name: "a layer is gone", want: []string{"layer-missing"}, stays: []string{"layer-missing"},
			do: func(f *fixture) { f.must(os.RemoveAll(f.at("layers", f.top))) },
			after: func(f *fixture, r *fsck.Report) {
				// Not ext, and not base, which is below.
				if got, want := r.Findings[0].Affected, []string{"top", "again", "staged", "work", "view"}; !slices.Equal(got, want) {
					f.t.Errorf("affected: %q, want %q", got, want)
				}
				if c := f.contents(); len(c.Snapshots) != 7 || len(c.Layers) != 4 {
					f.t.Errorf("something was deleted: %+v", c)
				}
			},
		},
		lasting("a shared layer is gone", "layer-missing", func(f *fixture) { f.must(os.RemoveAll(f.at("layers", f.base))) }),
		lasting("a layer without fs", "layer-fs-missing", func(f *fixture) { f.must(os.RemoveAll(f.at("layers", f.top, "fs"))) }),
		one("a directory of no layer", "layer-orphan", func(f *fixture) {
			f.fix(metadata.ReserveFix(100))
			f.write("layers/90/fs/file", "x")
		}),
		one("a directory with a high number", "number-unreserved", nil).with("layer-orphan", func(f *fixture) { f.write("layers/900/fs/file", "x") }),
		one("a workdir is left", "work-left", func(f *fixture) {
			f.must(os.MkdirAll(f.at("layers", f.top, "work/work/x"), 0o700))
		}),
		one("a seal is left", "work-left", func(f *fixture) { f.write(f.in("layers", f.top, "seal.json"), "{}") }),
		one("a layer where it was a snapshot", "publish-interrupted", func(f *fixture) {
			f.must(os.Rename(f.at("layers", f.top), f.at("snapshots", f.top)), os.Mkdir(f.at("snapshots", f.top, "work"), 0o700))
		}),
		one("a snapshot where a layer would be", "commit-interrupted", func(f *fixture) {
			f.must(os.Rename(f.at("snapshots", f.work), f.at("layers", f.work)))
		}),
		lasting("a mount on a layer", "layer-mounted", func(f *fixture) {
			f.must(unix.Mount(f.store, f.at("layers", f.top, "fs"), "", unix.MS_BIND, ""))
		}).with("usage-measured", nil),
		one("more in a layer than was", "usage-measured", func(f *fixture) { f.write(f.in("layers", f.top, "fs/new"), "x") }),
	}
}

// with adds a code that comes along.
func (d damage) with(code string, do func(*fixture)) damage {
	d.want = append(d.want, code)
	if d.data { // nothing repairs those
		d.stays = append(d.stays, code)
	}
	if do != nil {
		d.do = do
	}
	return d
}

// manifest changes layer.json of layer n.
func (f *fixture) manifest(n uint64, change func(*layerstore.Manifest)) {
	path := f.at("layers", n, "layer.json")
	b, err := os.ReadFile(path)
	f.must(err)
	var m layerstore.Manifest
	f.must(json.Unmarshal(b, &m))
	change(&m)
	b, err = json.Marshal(m)
	f.must(err, os.WriteFile(path, b, 0o600))
}

func manifestDamages() []damage {
	changed := func(name, code string, change func(*layerstore.Manifest)) damage {
		return lasting(name, code, func(f *fixture) { f.manifest(f.top, change) })
	}
	return []damage{
		one("no layer.json", "manifest-missing", func(f *fixture) { f.must(os.Remove(f.at("layers", f.top, "layer.json"))) }),
		one("no layer.json of a patch", "manifest-missing", func(f *fixture) { f.must(os.Remove(f.at("layers", f.patch, "layer.json"))) }),
		lasting("no layer.json where a snapshot is staged", "manifest-missing", func(f *fixture) {
			f.must(os.Remove(f.at("layers", f.base, "layer.json")))
		}),
		{
			name: "no layer.json of a shared layer", want: []string{"manifest-missing"},
			do: func(f *fixture) {
				f.layer(f.top, func(l *metadata.Layer) { l.DiffID = digest.FromString("third") })
				f.must(os.Remove(f.at("layers", f.top, "layer.json")))
			},
			after: func(f *fixture, _ *fsck.Report) {
				if l := f.contents().Layers[f.top]; l.DiffID != "" {
					f.t.Errorf("it is still shared: %+v", l)
				}
			},
		},
		one("layer.json cut off", "manifest-unreadable", func(f *fixture) { f.must(os.Truncate(f.at("layers", f.top, "layer.json"), 10)) }),
		changed("a format of later", "manifest-format", func(m *layerstore.Manifest) { m.Format = "erofs" }),
		changed("a version of later", "manifest-format", func(m *layerstore.Manifest) { m.Version = 9 }),
		changed("layer.json of another layer", "manifest-number", func(m *layerstore.Manifest) { m.Number = 3 + m.Number }),
		changed("layer.json with a diffID", "manifest-diffid", func(m *layerstore.Manifest) { m.DiffID = extID }),
		changed("layer.json of a patch", "manifest-patch", func(m *layerstore.Manifest) { m.Patch = true }),
		changed("layer.json of an opaque layer", "manifest-flags", func(m *layerstore.Manifest) { m.OpaqueRoot = true }),
		changed("needs that are none", "manifest-needs", func(m *layerstore.Manifest) { m.Needs = json.RawMessage(`"x"`) }),
	}
}

func snapshotDamages() []damage {
	return []damage{
		lasting("a snapshot is gone", "snapshot-missing", func(f *fixture) { f.must(os.RemoveAll(f.at("snapshots", f.work))) }),
		lasting("a snapshot without fs", "snapshot-fs-missing", func(f *fixture) { f.must(os.RemoveAll(f.at("snapshots", f.work, "fs"))) }),
		one("a snapshot without work", "snapshot-work-missing", func(f *fixture) { f.must(os.RemoveAll(f.at("snapshots", f.work, "work"))) }),
		lasting("a seal that can't be read", "seal-unreadable", func(f *fixture) { f.write(f.in("snapshots", f.work, "seal.json"), "{") }),
		one("a directory of no snapshot", "snapshot-orphan", func(f *fixture) {
			f.fix(metadata.ReserveFix(100))
			f.write("snapshots/90/fs/file", "x")
		}),
		one("a directory of a view", "snapshot-orphan", func(f *fixture) { f.write(f.in("snapshots", f.view, "fs/file"), "x") }),
	}
}

func externalDamages() []damage {
	unmount := func(f *fixture) { f.must(unix.Unmount(f.at("layers", f.extLayer, "fs"), 0)) }
	return []damage{
		one("no note", "external-note-missing", func(f *fixture) { f.must(os.Remove(f.at("external", f.extLayer))) }),
		one("a note that can't be read", "external-note-wrong", func(f *fixture) { f.write(f.in("external", f.extLayer, ""), "{") }),
		one("a note of another layer", "external-note-wrong", func(f *fixture) {
			f.write(f.in("external", f.extLayer, ""), `{"store":"/other","path":"x"}`)
		}),
		one("a note of no layer", "external-note-orphan", func(f *fixture) { f.write("external/90", "{}") }),
		{
			name: "an external layer of nobody", want: []string{"layer-orphan"},
			do: func(f *fixture) {
				f.must(os.WriteFile(filepath.Join(f.store, "layers/x/fs/file"), nil, 0o644))
				f.remove("ext")
			},
			after: func(f *fixture, _ *fsck.Report) {
				if _, err := os.Stat(filepath.Join(f.store, "layers/x/fs/file")); err != nil {
					f.t.Errorf("a repair reached into the additional store: %v", err)
				}
			},
		},
		one("an external layer of nobody, not mounted", "layer-orphan", func(f *fixture) {
			unmount(f)
			f.remove("ext")
		}),
		lasting("not mounted", "external-not-mounted", unmount),
		lasting("no additional store", "external-store-missing", func(f *fixture) {
			unmount(f)
			f.must(os.RemoveAll(f.store))
		}),
		lasting("the layer is gone from its store", "external-store-missing", func(f *fixture) {
			unmount(f)
			f.must(os.RemoveAll(filepath.Join(f.store, "layers")))
		}),
	}
}

// remove deletes a snapshot, and leaves the directories.
func (f *fixture) remove(name string) {
	meta, err := metadata.Open(filepath.Join(f.root, "metadata.db"))
	f.must(err)
	f.must(meta.Update(ctx, func(tx *metadata.Tx) error { _, err := tx.Remove(name); return err }), meta.Close())
}
