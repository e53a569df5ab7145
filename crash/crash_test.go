// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

func TestClassify(t *testing.T) {
	file := func(data string) string { return treeOf(t, layertest.File("f", data))["/f"] }
	large := make([]byte, 1000)
	for _, tc := range []struct{ name, want, got, kind string }{
		{"missing", file("a"), absent, missing},
		{"extra", absent, file("a"), extra},
		{"empty", file("a"), file(""), empty},
		{"large and empty", file(string(large)), file(""), empty},
		{"short", file("abc"), file("ab"), short},
		{"large and short", file(string(large)), file(string(large[1:])), short},
		{"corrupt", file("abc"), file("abd"), corrupt},
		{"large and corrupt", file(string(large)), file("x" + string(large[1:])), corrupt},
		{"mode", file("abc"), treeOf(t, layertest.File("f", "abc").Perm(0o600))["/f"], metadata},
		{"type", file("abc"), treeOf(t, layertest.Dir("f"))["/f"], metadata},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if kind := classify(tc.want, tc.got); kind != tc.kind {
				t.Errorf("%s instead of %s is %s, want %s", tc.got, tc.want, kind, tc.kind)
			}
		})
	}
}

func treeOf(t *testing.T, entries ...layertest.Entry) layertest.Tree {
	t.Helper()
	model, err := layertest.Truth([]layertest.Layer{entries})
	if err != nil {
		t.Fatal(err)
	}
	return model.Tree()
}

// Every image can be: its layers are what the model takes, so that nothing is compared
// with half a tree.
func TestImages(t *testing.T) {
	p, err := newPool(t.Context(), t.TempDir(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range p.images {
		tree, err := p.tree(img.layers)
		if err != nil {
			t.Error(err)
		}
		if len(tree) < 3 {
			t.Errorf("an image of %d layers shows %d paths", len(img.layers), len(tree))
		}
	}
}

func TestVerdict(t *testing.T) {
	clean, bad := newTotal(), newTotal()
	clean.add(&report{Kind: cut})
	r := &report{Kind: cut, Seed: 3}
	r.found(lost, "a snapshot")
	bad.add(r)
	if clean.verdict(false) != nil || bad.verdict(true) != nil {
		t.Error("what should come out is an error")
	}
	if clean.verdict(true) == nil || bad.verdict(false) == nil {
		t.Error("what should not come out is no error")
	}
}

// One of each kind; make crash has more. Without durability something is lost, or the
// others would prove nothing.
func TestCommand(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.RequireTool(t, "go", "mkfs.ext4")
	program := filepath.Join(t.TempDir(), "crash")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	for _, args := range [][]string{
		{"-cuts", "1", "-kills", "1", "-seed", "1", "-files", "1000"},
		{"-cuts", "1", "-seed", "1", "-when", "commit", "-prove", "-files", "1000"},
	} {
		out, err := exec.Command(program, append(args, "-work", t.TempDir())...).CombinedOutput()
		if err != nil {
			t.Errorf("crash %v: %v: %s", args, err, out)
			continue
		}
		var sum total
		if err := json.Unmarshal(lastLine(out), &sum); err != nil || sum.Commits == 0 {
			t.Errorf("crash %v: %v: %d commits: %s", args, err, sum.Commits, out)
		}
	}
}

func lastLine(out []byte) []byte {
	end := len(out) - 1 // the line break
	begin := end
	for begin > 0 && out[begin-1] != '\n' {
		begin--
	}
	return out[begin:end]
}
