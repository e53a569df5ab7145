// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"archive/tar"
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/strata-snapshotter/strata/internal/testutil"
)

// TestSeen holds the tree of paths against sets of whole paths, asked the plain way.
func TestSeen(t *testing.T) {
	paths := rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "ab", "c"}), 1, 4),
		func(parts []string) string { return strings.Join(parts, "/") })
	rapid.Check(t, func(t *rapid.T) {
		root, marked := &seen{}, map[string]bool{}
		t.Repeat(map[string]func(*rapid.T){
			"make": func(t *rapid.T) {
				path := paths.Draw(t, "path")
				root.at(path).made, marked[path] = true, true
			},
			"note": func(t *rapid.T) {
				path := paths.Draw(t, "path")
				root.at(path).timed, marked[path] = true, true
			},
			"forget": func(t *rapid.T) {
				path := paths.Draw(t, "path")
				root.forget(path)
				maps.DeleteFunc(marked, func(p string, _ bool) bool { return p == path || strings.HasPrefix(p, path+"/") })
			},
			"": func(t *rapid.T) {
				path := paths.Draw(t, "path")
				within := marked[path]
				for p := range marked {
					within = within || strings.HasPrefix(p, path+"/")
				}
				if n := root.find(path); (n != nil) != within {
					t.Fatalf("%s: found %+v, want something: %v", path, n, within)
				} else if n != nil && (n.made || n.timed) != marked[path] {
					t.Fatalf("%s: found %+v, want a mark: %v", path, n, marked[path])
				}
			},
		})
	})
}

// TestSeenDirectories: those that something is left to do for, lower ones first.
func TestSeenDirectories(t *testing.T) {
	root := &seen{}
	root.timed = true
	root.at("a/b/c").entry = &entry{}
	root.at("a/b").timed = true
	root.at("a/file").made = true
	root.at("d").entry = &entry{}
	root.at("x/y").made = true
	var got []string
	for _, d := range root.directories() {
		for _, before := range got {
			if strings.HasPrefix(d.path, before+"/") || before == "" {
				t.Errorf("%q comes after %q", d.path, before)
			}
		}
		got = append(got, d.path)
	}
	slices.Sort(got)
	if want := []string{"", "a/b", "a/b/c", "d"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// extractOnto extracts entries onto dir and says how many names opaque markers
// went through.
func extractOnto(t *testing.T, dir string, names ...string) int {
	t.Helper()
	var blob bytes.Buffer
	w := tar.NewWriter(&blob)
	for _, name := range names {
		h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}
		if strings.HasSuffix(name, "/") {
			h.Typeflag = tar.TypeDir
		}
		must(t, w.WriteHeader(h))
	}
	must(t, w.Close())
	f, err := os.Open(dir)
	must(t, err)
	defer func() { must(t, f.Close()) }()
	var o *onto
	_, err = extract(t.Context(), FromReader(&blob), Options{}.withDefaults(), func(x *extraction) error {
		o = &onto{extraction: x, ground: plainGround{f}, seen: &seen{}}
		err := o.each(o.entry)
		if err == nil {
			err = o.finish()
		}
		return x.writers.end(err)
	})
	must(t, err)
	return o.looked
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestOpaqueMarkersCost: a layer of opaque markers goes through each name a fixed
// number of times, however many markers there are and wherever they stand.
func TestOpaqueMarkersCost(t *testing.T) {
	testutil.RequireRoot(t)
	const marker, many, levels = ".wh..wh..opq", 300, 100
	deep := "d/" + strings.Repeat("x/", levels)
	numbered := func(format string) (all []string) {
		for i := range many {
			all = append(all, fmt.Sprintf(format, i))
		}
		return all
	}
	cases := map[string]struct {
		names []string
		most  int // names gone through
		want  []string
	}{
		"one marker again and again": {
			names: append(numbered("d/%d"), slices.Repeat([]string{"d/" + marker}, many)...),
			most:  many + 3, // and what was there
		},
		"a marker after every file": {
			names: interleave(numbered("d/%d"), "d/"+marker),
			most:  many + 3,
		},
		"markers inside out": {
			names: append(numbered("d/%d/"+marker), "d/"+marker),
			most:  many + 3,
		},
		"markers outside in": {
			names: append([]string{"d/" + marker}, numbered("d/%d/"+marker)...),
			most:  many + 3,
		},
		"markers on directories of the layer's own": {
			names: append(numbered("new/%d/f"), numbered("new/%d/"+marker)...),
			most:  0, // nor is there anything to go through
		},
		"markers all the way down": {
			names: append([]string{deep + "f", "d/" + marker}, down(deep, marker)...),
			most:  levels + 3, // and what was there, and f
		},
		"markers all the way up": {
			names: append([]string{deep + "f"}, backwards(append([]string{"d/" + marker}, down(deep, marker)...))...),
			most:  levels + 3,
		},
		"deleted and made again": {
			names: slices.Repeat([]string{"d/x", "d/" + marker, ".wh.d", "d/"}, many),
			most:  many,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.MkdirAll(filepath.Join(dir, "d", "old", "deep"), 0o755))
			must(t, os.MkdirAll(filepath.Join(dir, deep), 0o755))
			if looked := extractOnto(t, dir, c.names...); looked > c.most {
				t.Errorf("%d names were gone through, at most %d are needed", looked, c.most)
			}
			_, err := os.Lstat(filepath.Join(dir, "d", "old"))
			if gone := os.IsNotExist(err); gone == (c.most == 0) {
				t.Errorf("what was below: %v", err)
			}
		})
	}
}

// down is a marker in each directory of path but the first.
func down(path, marker string) (all []string) {
	for i := strings.IndexByte(path, '/') + 1; i < len(path); {
		i += strings.IndexByte(path[i:], '/') + 1
		all = append(all, path[:i]+marker)
	}
	return all
}

func backwards(names []string) []string {
	slices.Reverse(names)
	return names
}

func interleave(names []string, between string) (all []string) {
	for _, name := range names {
		all = append(all, name, between)
	}
	return all
}

// TestNestedMarkers: what the layer has stays, what was there goes, whichever of
// the markers comes first, and a directory that nobody named looks like a new one.
func TestNestedMarkers(t *testing.T) {
	testutil.RequireRoot(t)
	const marker = ".wh..wh..opq"
	for _, names := range [][]string{
		{"d/s/" + marker, "d/s/mine", "d/" + marker},
		{"d/s/mine", "d/s/" + marker, "d/" + marker},
		{"d/s/mine", "d/" + marker, "d/s/" + marker},
		{"d/" + marker, "d/s/" + marker, "d/s/mine"},
	} {
		dir := t.TempDir()
		must(t, os.MkdirAll(filepath.Join(dir, "d/s/t"), 0o755))
		must(t, os.Chmod(filepath.Join(dir, "d/s"), 0o700))
		extractOnto(t, dir, names...)
		entries, err := os.ReadDir(filepath.Join(dir, "d/s"))
		must(t, err)
		if len(entries) != 1 || entries[0].Name() != "mine" {
			t.Errorf("%q left %v", names, entries)
		}
		if info, err := os.Stat(filepath.Join(dir, "d/s")); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%q: mode %v, %v", names, info.Mode(), err)
		}
	}
}
