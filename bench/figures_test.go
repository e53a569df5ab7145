// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMissedGoals(t *testing.T) {
	for _, test := range []struct {
		name           string
		unit           string
		theirs, ours   []float64
		goal           goal
		ratio          float64
		text, reported string
	}{
		{"faster", "ms", []float64{200, 400}, []float64{10, 10}, goal{ratioAtLeast, 20}, 30, "20", "ratio >= 20"},
		{"too slow", "ms", []float64{100}, []float64{10}, goal{ratioAtLeast, 20}, 10, "<20", "ratio >= 20"},
		{"a higher rate", perSecond, []float64{100}, []float64{300}, goal{ratioAtLeast, 2}, 3, "2", "ratio >= 2"},
		{"a lower rate", perSecond, []float64{300}, []float64{100}, goal{ratioAtLeast, 2}, 1. / 3, "<2", "ratio >= 2"},
		{"small", "", []float64{9}, []float64{1}, goal{strataAtMost, 1.02}, 9, "1.02", "strata <= 1.02"},
		{"large", "", []float64{9}, []float64{1.5}, goal{strataAtMost, 1.02}, 6, ">1.02", "strata <= 1.02"},
		{"not asked", "MiB", []float64{1}, []float64{2}, goal{}, 0.5, "", ""},
		{"none fetched", "MiB", []float64{5}, []float64{0}, goal{strataAtMost, 0}, 0, "0", "strata <= 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := figure{unit: test.unit, values: [2][]float64{test.theirs, test.ours}, goal: test.goal}
			if got := spreadOf(f.ratios()).Median; got != test.ratio {
				t.Errorf("ratio %v, want %v", got, test.ratio)
			}
			if got := f.goalText(); got != test.text {
				t.Errorf("in the table %q, want %q", got, test.text)
			}
			j := f.json()
			if j.Goal != test.reported || j.Missed != strings.ContainsAny(test.text, "<>") {
				t.Errorf("in the file %q, missed %v", j.Goal, j.Missed)
			}
		})
	}
}

// What must not be makes the command fail, and a missed goal does not.
func TestFailures(t *testing.T) {
	r := newFigures(options{}, io.Discard)
	r.add(figure{values: [2][]float64{{1}, {9}}, goal: goal{strataAtMost, 1}})
	must(t, r.finish())
	r.add(figure{failures: []string{"fetched again"}})
	if r.finish() == nil {
		t.Error("a failure was not told")
	}
}

func TestDiskUsage(t *testing.T) {
	dir := t.TempDir()
	before, err := diskUsage(dir)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "one"), make([]byte, 1<<20), 0o644))
	must(t, os.Link(filepath.Join(dir, "one"), filepath.Join(dir, "two")))
	must(t, sparse(filepath.Join(dir, "hole"), 1<<30))
	must(t, with(filepath.Join(dir, "one"), unix.Fsync)) // blocks are counted when they are there
	after, err := diskUsage(dir)
	must(t, err)
	if grown := after - before; grown < 1<<20 || grown > 1<<20+64<<10 {
		t.Errorf("%d bytes more, want those of one file", grown)
	}
}

func TestRegistryCounts(t *testing.T) {
	dir := t.TempDir()
	must(t, generate(dir, bases))
	c := &corpus{dir: dir, layers: map[string]*layer{}}
	a, err := c.layer("base-a", "gz")
	must(t, err)
	b, err := c.layer("base-b", "gz")
	must(t, err)
	if a.diffID == b.diffID {
		t.Error("both bases are the same layer")
	}
	r := startRegistry()
	defer r.close()
	_, err = r.publish("image", []*layer{a, b})
	must(t, err)
	get := func(path, ranges string) int64 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.server.URL+path, nil)
		must(t, err)
		req.Header.Set("Range", ranges)
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		defer func() { must(t, resp.Body.Close()) }()
		n, err := io.Copy(io.Discard, resp.Body)
		must(t, err)
		if resp.StatusCode >= 300 {
			t.Errorf("%s: %s", path, resp.Status)
		}
		return n
	}
	if get("/v2/image/manifests/1", "") == 0 {
		t.Error("no manifest")
	}
	blob := "/v2/image/blobs/" + a.desc.Digest.String()
	if n := get(blob, ""); n != a.desc.Size {
		t.Errorf("%d bytes, want %d", n, a.desc.Size)
	}
	// As containerd asks when it resumes.
	if n := get(blob, "bytes=100-"); n != a.desc.Size-100 {
		t.Errorf("%d bytes of a part, want %d", n, a.desc.Size-100)
	}
	if n := r.servedOf([]*layer{a, b}); n != 2*a.desc.Size-100 {
		t.Errorf("%d bytes were counted", n)
	}
	if r.reset(); r.servedOf([]*layer{a, b}) != 0 {
		t.Error("bytes are counted that were not served")
	}
}

// Images of one set of layers must have no more in common than that: the first image
// of the ten is followed by no other with its two lowest layers.
func TestOrders(t *testing.T) {
	s := &sharing{layers: map[string]*layer{}}
	for _, name := range append([]string{"base-a", "base-b"}, sharedLayers...) {
		s.layers[name] = &layer{name: name}
	}
	seen := map[string]bool{}
	for i := range tenCount {
		order := s.order(i)
		if len(order) != len(sharedLayers)+1 {
			t.Fatalf("image %d has %d layers", i, len(order))
		}
		start := order[0].name + " " + order[1].name
		if seen[start] {
			t.Errorf("image %d starts like another: %s", i, start)
		}
		seen[start] = true
	}
}
