// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

func plan(seed uint64, id, length int) (ops []string) {
	p := newPlanner(seed, id, &pool{host: "h", images: []*poolImage{{name: "one"}, {name: "two", hasEtc: true}}})
	for range length {
		ops = append(ops, p.next().String())
	}
	return ops
}

// The same seed is the same plan, and no other client's; every kind of operation occurs.
func TestPlan(t *testing.T) {
	const length = 2000
	first := plan(7, 0, length)
	if !slices.Equal(first, plan(7, 0, length)) {
		t.Error("one seed gives two plans")
	}
	for what, other := range map[string][]string{"another seed": plan(8, 0, length), "another client": plan(7, 1, length)} {
		if slices.Equal(first, other) {
			t.Errorf("%s does the same", what)
		}
	}
	for _, kind := range []string{opPull, opRun, opExec, opLook, opLookImage, opCommit, opRemoveContainer, opRemoveImage, opCollect} {
		n := 0
		for _, o := range first {
			if strings.HasPrefix(o, kind+" ") {
				n++
			}
		}
		if n < length/100 {
			t.Errorf("%s: %d times of %d", kind, n, length)
		}
	}
}

// A script makes what the model makes of the same layer, also the second time.
func TestScript(t *testing.T) {
	testutil.RequireRoot(t)
	p := newPlanner(3, 0, &pool{})
	base := layertest.Layer{
		layertest.Dir("etc"), layertest.File("etc/common-0", "old"), layertest.File("root-3", "old"),
		layertest.Dir("usr"), layertest.Dir("usr/lib"), layertest.File("usr/lib/old", "old"),
	}
	for range 10 {
		dir := t.TempDir()
		l := p.written(p.name("w"), true)
		text := strings.NewReplacer(" '/", " '"+dir+"/", ">'/", ">'"+dir+"/").Replace(script(base) + script(l) + script(l) + check(&l[1]))
		if out, err := exec.Command("/bin/bash", "-ec", text).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		want, err := treeOf([]layertest.Layer{base, l}, touchedBy([]layertest.Layer{base, l}))
		if err != nil {
			t.Fatal(err)
		}
		want["/"] = "" // the temporary directory's
		got, err := layertest.Dump(dir)
		if err != nil {
			t.Fatal(err)
		}
		got["/"] = ""
		if lines := want.Diff(got); len(lines) > 0 {
			t.Errorf("%v\n%s", lines, text)
		}
	}
}

func TestJudge(t *testing.T) {
	warm := sample{PID: 1, RSS: 40 << 10, Descriptors: 20, Goroutines: 15}
	for name, change := range map[string]func(*sample){
		"another daemon": func(s *sample) { s.PID = 2 },
		"memory":         func(s *sample) { s.RSS *= 3 },
		"descriptors":    func(s *sample) { s.Descriptors += moreDescriptors + 1 },
		"goroutines":     func(s *sample) { s.Goroutines += moreGoroutines + 1 },
	} {
		r := newReport(1)
		r.Warm, r.End = warm, warm
		r.judge(options{})
		if r.failed() {
			t.Errorf("no change: %v", r.Findings)
		}
		change(&r.End)
		r.judge(options{})
		if len(r.Findings) != 1 {
			t.Errorf("%s: %v", name, r.Findings)
		}
	}
}

// Some seconds of it; make soak goes on longer.
func TestCommand(t *testing.T) {
	testutil.RequireRoot(t)
	bin := os.Getenv("STRATA_TEST_BIN")
	if bin == "" {
		bin = "../.cache/bin"
	}
	if err := checkTools(bin); err != nil {
		testutil.CannotRun(t, err.Error())
	}
	program := filepath.Join(t.TempDir(), "soak")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	cmd := exec.Command(program, "-minutes", "0.4", "-seed", "1", "-race", "-bin", bin, "-work", t.TempDir())
	said := &strings.Builder{}
	cmd.Stderr = said
	out, err := cmd.Output()
	var rep report
	if err := errors.Join(err, json.Unmarshal(out, &rep)); err != nil || rep.Entries == 0 || rep.Events["daemon killed"] == 0 {
		t.Errorf("%v: %s\n%s", err, out, said)
	}
	t.Logf("%s", out)
}
