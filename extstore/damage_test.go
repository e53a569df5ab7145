// SPDX-License-Identifier: Apache-2.0

package extstore

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/strata-snapshotter/strata/internal/layertest"
	"golang.org/x/sys/unix"
)

// exported is a store with one layer.
type exported struct {
	layer          Layer
	store, dir, fs string
}

func export(t *testing.T, layer layertest.Layer) exported {
	t.Helper()
	e := exported{layer: mustExtract(t, layer), store: filepath.Join(t.TempDir(), "store")}
	must(t, Export(ctx, e.store, e.layer))
	e.dir = filepath.Join(e.store, layerPath(e.layer.DiffID))
	e.fs = filepath.Join(e.dir, fsName)
	return e
}

// keepingTimes does something in fs and sets the times of its directories back,
// so that they are not the difference that is found.
func (e exported) keepingTimes(do func() error) error {
	times := map[string]unix.Timespec{}
	err := filepath.WalkDir(e.fs, func(path string, d os.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && d.IsDir() {
			err = unix.Stat(path, &st)
			times[path] = st.Mtim
		}
		return err
	})
	err = errors.Join(err, do())
	for path, mtime := range times {
		if e := unix.UtimesNano(path, []unix.Timespec{mtime, mtime}); !errors.Is(e, unix.ENOENT) {
			err = errors.Join(err, e)
		}
	}
	return err
}

func (e exported) changeManifest(change func(*manifest)) error {
	path := filepath.Join(e.dir, layerFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	change(&m)
	if b, err = json.Marshal(m); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

func rewrite(path, data string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	err := os.WriteFile(path, []byte(data), 0)
	return errors.Join(err, unix.UtimesNano(path, []unix.Timespec{st.Mtim, st.Mtim}))
}

// damages are what can happen to a layer of rich(): what is said about it, and
// by which verification it is found.
var damages = map[string]struct {
	do     func(e exported) error
	reason Reason
	says   string
	found  []Verify
}{
	"no layer.json": {
		func(e exported) error { return os.Remove(e.dir + "/" + layerFile) }, ReasonIncomplete, "no layer.json", all,
	},
	"truncated layer.json": {
		func(e exported) error { return os.Truncate(e.dir+"/"+layerFile, 100) }, ReasonDamaged, "layer.json can't be read", all,
	},
	"layer.json is a directory": {
		func(e exported) error { return replace(e.dir+"/"+layerFile, os.Mkdir) }, ReasonDamaged, "layer.json is not a file", all,
	},
	"layer.json is a pipe": {
		func(e exported) error {
			return replace(e.dir+"/"+layerFile, func(p string, _ os.FileMode) error { return unix.Mkfifo(p, 0o600) })
		}, ReasonDamaged, "layer.json is not a file", all,
	},
	"wrong diffID": {
		func(e exported) error {
			return e.changeManifest(func(m *manifest) { m.DiffID = digest.FromString("x") })
		},
		ReasonDamaged, digest.FromString("x").String(), all,
	},
	"another format": {
		func(e exported) error { return e.changeManifest(func(m *manifest) { m.Format = "erofs" }) }, ReasonDamaged, `"erofs"`, all,
	},
	"a newer version": {
		func(e exported) error { return e.changeManifest(func(m *manifest) { m.Version = 7 }) }, ReasonDamaged, "version 7", all,
	},
	"a layer of one chain": {
		func(e exported) error { return e.changeManifest(func(m *manifest) { m.Needs.Mounted = "x" }) }, ReasonDamaged, "one image", all,
	},
	"an impossible usage": {
		func(e exported) error { return e.changeManifest(func(m *manifest) { m.Bytes = -1 }) }, ReasonDamaged, "usage", all,
	},
	"the other namespace": {
		func(e exported) error { return e.changeManifest(func(m *manifest) { m.Xattrs = "user" }) }, ReasonNamespace, `"user"`, all,
	},
	"an unknown namespace": {
		func(e exported) error { return e.changeManifest(func(m *manifest) { m.Xattrs = "x" }) }, ReasonDamaged, `"x"`, all,
	},
	"no digest": {
		func(e exported) error { return e.changeManifest(func(m *manifest) { m.Tree = treeDigests{} }) }, ReasonDifferent, "no digest", byMetadata,
	},
	"no fs": {
		func(e exported) error { return os.RemoveAll(e.fs) }, ReasonIncomplete, "no directory fs", all,
	},
	"fs is a file": {
		func(e exported) error {
			return replace(e.fs, func(p string, _ os.FileMode) error { return os.WriteFile(p, nil, 0o600) })
		}, ReasonDamaged, "not a directory", all,
	},
	"fs is a link": {
		func(e exported) error {
			return errors.Join(os.Rename(e.fs, e.dir+"/other"), os.Symlink("other", e.fs))
		}, ReasonDamaged, "symbolic link", all,
	},
	"the layer is a link": {
		func(e exported) error {
			other := filepath.Join(e.store, "other")
			return errors.Join(os.Rename(e.dir, other), os.Symlink(other, e.dir))
		}, ReasonDamaged, "symbolic link", all,
	},
	"the layer is a file": {
		func(e exported) error {
			return replace(e.dir, func(p string, _ os.FileMode) error { return os.WriteFile(p, nil, 0o600) })
		}, ReasonDamaged, "not a directory", all,
	},
	"changed mode": {
		func(e exported) error { return os.Chmod(e.fs+"/etc/passwd", 0o666) }, ReasonDifferent,
		`the mode of "etc/passwd" is 0666 and was 0644`, byMetadata,
	},
	"changed owner": {
		func(e exported) error { return os.Lchown(e.fs+"/etc/mtab", 6, 7) }, ReasonDifferent, `the owner of "etc/mtab" is 6 and was 5`, byMetadata,
	},
	"changed time": {
		func(e exported) error {
			return unix.UtimesNano(e.fs+"/etc/passwd", []unix.Timespec{{}, {Sec: 1_111_111_111, Nsec: 123456788}})
		}, ReasonDifferent, `the modification time of "etc/passwd"`, byMetadata,
	},
	"changed content": {
		func(e exported) error { return rewrite(e.fs+"/etc/passwd", "toor:x:0:0") }, ReasonDifferent,
		`the content of "etc/passwd" has changed`, byContent,
	},
	"one byte of a large file": {
		func(e exported) error { return flip(e.fs+"/usr/large", 1_000_000) }, ReasonDifferent, `the content of "usr/large" has changed`, byContent,
	},
	"missing file": {
		func(e exported) error {
			return e.keepingTimes(func() error { return os.Remove(e.fs + "/etc/passwd") })
		}, ReasonDifferent, `"etc/passwd" is missing`, byMetadata,
	},
	"missing last file": {
		func(e exported) error { return e.keepingTimes(func() error { return os.Remove(e.fs + "/usr/large") }) },
		ReasonDifferent, `"usr/large" is missing`, byMetadata,
	},
	"missing whiteout": {
		func(e exported) error { return e.keepingTimes(func() error { return os.Remove(e.fs + "/etc/gone") }) },
		ReasonDifferent, `"etc/gone" is missing`, byMetadata,
	},
	"extra file": {
		func(e exported) error {
			return e.keepingTimes(func() error { return os.WriteFile(e.fs+"/etc/a", nil, 0o600) })
		}, ReasonDifferent, `"etc/a" was added`, byMetadata,
	},
	"extra last file": {
		func(e exported) error {
			return e.keepingTimes(func() error { return os.WriteFile(e.fs+"/usr/z", nil, 0o600) })
		}, ReasonDifferent, `"usr/z" was added`, byMetadata,
	},
	"extra file, with times": {
		func(e exported) error { return os.WriteFile(e.fs+"/etc/a", nil, 0o600) }, ReasonDifferent, `the modification time of "etc"`, byMetadata,
	},
	"changed xattr": {
		func(e exported) error { return unix.Setxattr(e.fs+"/etc/passwd", "user.note", []byte("b"), 0) }, ReasonDifferent,
		`the attributes of "etc/passwd"`, byMetadata,
	},
	"lost mark": {
		func(e exported) error { return unix.Removexattr(e.fs+"/etc/opaque", "trusted.overlay.opaque") }, ReasonDifferent,
		`the attributes of "etc/opaque" is - and was "trusted.overlay.opaque"="y"`, byMetadata,
	},
	"a redirect": {
		func(e exported) error { return unix.Setxattr(e.fs+"/usr", "trusted.overlay.redirect", []byte("/x"), 0) }, ReasonDifferent,
		`"usr" has its content in the layers below`, byMetadata,
	},
	"broken hard link": {
		func(e exported) error {
			return e.keepingTimes(func() error { return relink(e.fs+"/etc/su2", e.fs+"/etc/su") })
		}, ReasonDifferent, `the link of "etc/su2" is - and was "etc/su"`, byMetadata,
	},
	"a file that is a link": {
		func(e exported) error {
			return e.keepingTimes(func() error {
				return replace(e.fs+"/etc/passwd", func(p string, _ os.FileMode) error { return os.Symlink("/etc/passwd", p) })
			})
		}, ReasonDifferent, `the type of "etc/passwd" is symlink and was file`, byMetadata,
	},
	"changed root": {
		func(e exported) error { return os.Chmod(e.fs, 0o700) }, ReasonDifferent, `the mode of "." is 0700 and was 0755`, byMetadata,
	},
	"no index": {
		func(e exported) error {
			return errors.Join(os.Remove(e.dir+"/"+indexFile), os.Chmod(e.fs+"/etc/passwd", 0o666))
		}, ReasonDifferent, "its digest is sha256:", byMetadata,
	},
}

var (
	all        = []Verify{VerifyFull, VerifyMetadata, VerifyNone}
	byMetadata = []Verify{VerifyFull, VerifyMetadata}
	byContent  = []Verify{VerifyFull}
)

func replace(path string, with func(string, os.FileMode) error) error {
	return errors.Join(os.RemoveAll(path), with(path, 0o755))
}

func flip(path string, at int64) (err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{255}, at)
	return errors.Join(err, f.Close(), unix.UtimesNano(path, []unix.Timespec{st.Mtim, st.Mtim}))
}

// relink makes path a file like from, but not the same.
func relink(path, from string) error {
	var st unix.Stat_t
	if err := unix.Stat(from, &st); err != nil {
		return err
	}
	b, err := os.ReadFile(from)
	err = errors.Join(err, os.Remove(path), os.WriteFile(path, b, 0o600), os.Chown(path, int(st.Uid), int(st.Gid)))
	return errors.Join(err, unix.Chmod(path, st.Mode&0o7777), unix.UtimesNano(path, []unix.Timespec{st.Mtim, st.Mtim}))
}

func TestDamagedLayers(t *testing.T) {
	for name, tc := range damages {
		t.Run(name, func(t *testing.T) {
			e := export(t, rich())
			must(t, tc.do(e))
			for _, verify := range all {
				s, w := openSet(t, verify, e.store)
				if !slices.Contains(tc.found, verify) {
					found(t, s, e.layer.DiffID)
					continue
				}
				for range 3 {
					notFound(t, s, e.layer.DiffID)
				}
				if len(*w) != 1 || !strings.Contains((*w)[0], tc.says) || !strings.Contains((*w)[0], e.store) || !strings.Contains((*w)[0], e.layer.DiffID.String()) {
					t.Errorf("%s: warnings %q", verify, *w)
				}
				if got := s.Stats(); got.Skipped[tc.reason] != 3 || len(got.Skipped) != 1 || got.Missed != 3 || got.Found != 0 {
					t.Errorf("%s: %+v", verify, got)
				}
			}
		})
	}
}
