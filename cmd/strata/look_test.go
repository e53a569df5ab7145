// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/internal/testutil/teststore"
)

// look runs the program on a store.
func look(t *testing.T, store *teststore.Store, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(append([]string{name, "--root", store.Dir}, args...), strings.NewReader(""), &out, &err)
	return out.String(), err.String(), code
}

// newLookStore is a store that fsck has nothing worse than a hint or a leftover to say
// about at the end.
func newLookStore(t *testing.T) *teststore.Store {
	t.Helper()
	store := teststore.New(t)
	t.Cleanup(func() {
		report, err := fsck.Check(context.Background(), fsck.Options{Root: store.Root, Usage: true})
		if err != nil {
			t.Fatal(err)
		}
		if report.Worst() == fsck.Damage {
			t.Errorf("%+v", report.Findings)
		}
	})
	return store
}

var (
	agePattern  = regexp.MustCompile(`(Less than a second|\d+ \w+|About a minute) ago`)
	timePattern = regexp.MustCompile(`"created": "[^"]+"`)
	// How much is free, and how large metadata.db is, is not what is tested here.
	varyText = regexp.MustCompile(`(?m)^((?:records|total|content|free) +\d+) +\S+ +\d+$`)
	varyJSON = regexp.MustCompile(`("name": "(?:records|total|content|free)",\s+"count": \d+,\s+"bytes": )\d+(,\s+"inodes": )\d+`)
)

// golden compares what was printed with a file, but for what depends on the time and the
// machine. STRATA_UPDATE_GOLDEN=1 writes the files.
func golden(t *testing.T, file, got, dir string) {
	t.Helper()
	got = agePattern.ReplaceAllString(got, "AGE")
	got = timePattern.ReplaceAllString(got, `"created": "TIME"`)
	got = varyText.ReplaceAllString(got, "$1   -   -")
	got = varyJSON.ReplaceAllString(got, "${1}0${2}0")
	got = strings.ReplaceAll(got, dir, "ROOT")
	path := filepath.Join("testdata", "look", file)
	if os.Getenv("STRATA_UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
	}
}

func TestLookOutput(t *testing.T) {
	store := newLookStore(t)
	for file, args := range map[string][]string{
		"ls":            {"ls"},
		"ls.json":       {"ls", "--json"},
		"ls.format":     {"ls", "--format", "{{.Number}} {{.Kind}} {{.Key}} {{json .Layers}}"},
		"tree":          {"tree"},
		"tree.json":     {"tree", "--json"},
		"du":            {"du"},
		"du.json":       {"du", "--json"},
		"du-layer":      {"du", "--by", "layer"},
		"du-layer.json": {"du", "--by", "layer", "--json"},
		"du-image":      {"du", "--by", "image"},
		"du-container":  {"du", "--by", "container", "--no-measure"},
		"owner":         {"owner", "2"},
		"owner.json":    {"owner", "--json", store.Root + "/layers/2/fs/some/file"},
		"usage":         {"usage"},
		"usage.json":    {"usage", "--json", "--measure"},
	} {
		t.Run(file, func(t *testing.T) {
			stdout, stderr, code := look(t, store, args...)
			if code != exitOK || stderr != "" {
				t.Fatalf("exit %d: %s", code, stderr)
			}
			if slices.Contains(args, "--json") && !json.Valid([]byte(stdout)) {
				t.Errorf("no JSON")
			}
			golden(t, file+".golden", stdout, store.Root)
		})
	}
}

// Programs read these fields: one may come, none may go or get another name or type.
func TestLookFieldsStay(t *testing.T) {
	for _, c := range []struct {
		row  any
		want string
	}{
		{snapshotRow{}, "number uint64, name string, namespace string, key string, kind string, parent string, layers []uint64, diffID string, size int64, inodes int64, created time.Time"},
		{treeRow{}, "depth int, sharedWith []string, usedBy []main.holderName"},
		{holderName{}, "kind storeview.Kind, namespace string, name string"},
		{duRow{}, "kind storeview.Kind, namespace string, name string, image,omitempty string, number uint64, layers int, size int64, own int64, shared int64, reclaimable int64"},
		{layerUse{}, "number uint64, diffID string, kind string, size int64, inodes int64, shared bool, snapshots int, usedBy []main.holderName, reclaimable int64"},
		{ownerRow{}, "directory string, number uint64, diffID string, kind string, namespace string, name string"},
		{usageRow{}, "name string, count int, bytes int64, inodes int64"},
	} {
		var fields []string
		for _, f := range reflect.VisibleFields(reflect.TypeOf(c.row)) {
			if tag := f.Tag.Get("json"); tag != "" && len(f.Index) == 1 {
				fields = append(fields, tag+" "+f.Type.String())
			}
		}
		for _, want := range strings.Split(c.want, ", ") {
			if !slices.Contains(fields, want) {
				t.Errorf("%T has no field %q any more: %v", c.row, want, fields)
			}
		}
	}
}

// Layers once, by du, are what usage says of layers; and the total is what is on disk.
func TestLookFiguresAgree(t *testing.T) {
	store := newLookStore(t)
	var layers []layerUse
	var parts []usageRow
	fromJSON(t, store, &layers, "du", "--by", "layer", "--json")
	fromJSON(t, store, &parts, "usage", "--json")
	var sum int64
	for _, l := range layers {
		sum += l.Size
	}
	if got := part(t, parts, "layers").Bytes; got != sum {
		t.Errorf("usage says %d of layers, and du %d", got, sum)
	}
	blocks, inodes := onDisk(t, store.Dir)
	total := part(t, parts, "total")
	if total.Bytes != blocks || total.Inodes != inodes {
		t.Errorf("usage says %d bytes in %d inodes, and there are %d in %d", total.Bytes, total.Inodes, blocks, inodes)
	}
	if got := part(t, parts, "orphans"); got.Count != 1 {
		t.Errorf("%+v", got)
	}
	if got := part(t, parts, partSaved); got.Bytes != 256<<10 || got.Count != 1 {
		t.Errorf("%+v", got)
	}
}

func part(t *testing.T, parts []usageRow, name string) usageRow {
	t.Helper()
	i := slices.IndexFunc(parts, func(r usageRow) bool { return r.Name == name })
	if i < 0 {
		t.Fatalf("usage does not say %q", name)
	}
	return parts[i]
}

func fromJSON(t *testing.T, store *teststore.Store, v any, args ...string) {
	t.Helper()
	stdout, stderr, code := look(t, store, args...)
	if code != exitOK {
		t.Fatalf("%q: exit %d: %s", args, code, stderr)
	}
	decoder := json.NewDecoder(strings.NewReader(stdout))
	if err := decoder.Decode(v); err != nil {
		t.Fatal(err)
	}
	if _, err := decoder.Token(); err != io.EOF { //nolint:errorlint // Token gives it as it is
		t.Errorf("%q: more than one value", args)
	}
}

func TestLookExitCodes(t *testing.T) {
	store := newLookStore(t)
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"ls", "x"}, exitUsage, `unknown argument "x"`},
		{[]string{"ls", "--json", "--format", "x"}, exitUsage, "exclude each other"},
		{[]string{"ls", "--format", "{{.Nothing}}"}, exitUsage, "--format"},
		{[]string{"ls", "--nothing"}, exitUsage, "--help"},
		{[]string{"du", "--by", "x"}, exitUsage, "none of image, container and layer"},
		{[]string{"owner"}, exitUsage, "an argument is missing"},
		{[]string{"owner", "99"}, exitNotFound, "no snapshot or layer"},
		{[]string{"owner", "10"}, exitNotFound, "no snapshot or layer"},
		{[]string{"owner", store.Root + "/layers/10/fs"}, exitNotFound, "belongs to nothing"},
		{[]string{"owner", "/etc/passwd"}, exitNotFound, "is not in"},
		{[]string{"owner", "../x"}, exitNotFound, "is not in"},
		{[]string{"owner", "metadata.db"}, exitNotFound, "the store as a whole"},
		{[]string{"owner", "layers/x"}, exitNotFound, "no numbered directory"},
		{[]string{"--root", "/nonexistent", "ls"}, exitNotFound, "name another directory with --root"},
		{[]string{"--root", "/etc", "ls"}, exitNotFound, "name another directory with --root"},
		{[]string{"--root", store.Root, "ls", "--containerd-address", "/nonexistent.sock"}, exitUnavailable, "ask containerd at /nonexistent.sock"},
		{[]string{"--root", store.Root, "ls", "--containerd-address", ""}, exitOK, ""},
	} {
		stdout, stderr, code := look(t, store, c.args...)
		if code != c.code || !strings.Contains(stderr, c.says) || strings.Count(stderr, "\n") > 1 || c.code != exitOK && stdout != "" {
			t.Errorf("%q: exit %d, want %d and %q; stdout %q, stderr %q", c.args, code, c.code, c.says, stdout, stderr)
		}
	}
}
