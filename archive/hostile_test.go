// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// testdata/hostile/layers.tar.gz holds 175 hostile or malformed images, a file a
// layer, and cases.json with what must come of each. They are extracted by a
// process of their own in a sandbox beside files that must stay as they are, in
// all modes. The layers know the sandbox's path, so it is in a mount namespace
// with a /tmp of its own.
const (
	sandbox = "/tmp/badtars/SB"
	layerIn = "/tmp/layers"
	canary  = sandbox + "/outside"
)

// What must come of a case.
const (
	reject  = "reject"  // an error, and nothing outside changed
	contain = "contain" // an error or not, and nothing outside changed
	apply   = "apply"   // no error, and the tree is as said
	skip    = "skip"    // no error, the tree as said, the bad part left out
)

type hostileCase struct {
	ID, Cls, Expect, Note string
	Files, Gone           []string
	Tree                  map[string]string
	limits                archive.Limits
	wantClass             string // of the error, if only one will do
}

// hostileMode is a way in which layers are extracted.
type hostileMode struct {
	name    string
	options archive.Options
	onto    bool
	owner   int               // of the process that extracts
	expect  map[string]string // where it is not what cases.json says
}

func TestHostile(t *testing.T) {
	if inMountNS(t) {
		runHostile(t, hostileMode{name: "privileged"})
	}
}

// TestHostileOnto extracts every layer onto a mount of those below.
func TestHostileOnto(t *testing.T) {
	if inMountNS(t) {
		runHostile(t, hostileMode{name: "privileged", onto: true})
	}
}

func TestHostileInUserNS(t *testing.T) {
	if !testutil.InUserNS(t, 0) {
		return
	}
	runHostile(t, hostileMode{name: "userxattr", expect: map[string]string{
		"dev-block": contain, // no devices in a user namespace
		"uid-2p31":  reject,  // not one of its 65536 ids
	}})
}

func TestHostileOverrideStat(t *testing.T) {
	if inMountNS(t) {
		runHostile(t, hostileMode{name: "override-stat", options: archive.Options{OverrideStat: true}, owner: 65534})
	}
}

func runHostile(t *testing.T, mode hostileMode) {
	if err := unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "mode=1777"); err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, t.TempDir(), mode.options)
	cases, files := readHostileCases(t)
	peak := int64(0)
	for _, c := range cases {
		if expect, ok := mode.expect[c.ID]; ok {
			c.Expect = expect
		}
		t.Run(c.ID, func(t *testing.T) {
			j := newHostileJob(t, c, mode, h, files)
			peak = max(peak, j.run(t))
		})
	}
	t.Logf("%d cases, at most %d MiB", len(cases), peak>>20)
}

// readHostileCases returns the cases and the layers' files, and more cases that
// are too big for a file.
func readHostileCases(t *testing.T) (cases []hostileCase, files map[string][]byte) {
	t.Helper()
	files, err := readTarGz("testdata/hostile/layers.tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(files["cases.json"], &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) != 175 {
		t.Fatalf("%d cases, not 175", len(cases))
	}
	for i := range cases {
		if cases[i].Cls == "bomb" {
			cases[i].limits = archive.Limits{Bytes: 32 << 20}
			cases[i].Expect, cases[i].wantClass = reject, classExhausted
		}
	}
	return append(cases, bombs(files)...), files
}

func readTarGz(path string) (files map[string][]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	zr, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	files = map[string][]byte{}
	tr := tar.NewReader(zr)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if files[h.Name], err = io.ReadAll(tr); err != nil {
			return nil, err
		}
	}
}

// bombs are layers that grow when they are extracted, with and without a limit
// that stops them.
func bombs(files map[string][]byte) []hostileCase {
	const sparseSize = 4 << 30
	sparse := slices.Concat(
		rawHeader('x', "PaxHeaders/x", paxRecords(
			"GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "sp",
			"GNU.sparse.realsize", fmt.Sprint(sparseSize))),
		rawHeader('0', "x", []byte("0\n"+strings.Repeat("\x00", 510))),
		make([]byte, 1024))
	var inodes bytes.Buffer
	for i := range 50_000 {
		inodes.Write(rawHeader('0', fmt.Sprintf("i/%d", i), nil))
	}
	files["sparse-bomb.tar"], files["many-inodes.tar"] = sparse, inodes.Bytes()
	files["zeros.tar.gz"] = files["gz-bomb.tar.gz"]
	stopped := func(id, file string, limits archive.Limits) hostileCase {
		return hostileCase{
			ID: id, Cls: "bomb", Expect: reject, wantClass: classExhausted, Files: []string{file}, limits: limits,
			Note: "must be stopped by its limit",
		}
	}
	return []hostileCase{
		stopped("sparse-bomb", "sparse-bomb.tar", archive.Limits{Bytes: 1 << 30}),
		stopped("many-inodes", "many-inodes.tar", archive.Limits{Entries: 1000}),
		stopped("ratio", "zeros.tar.gz", archive.Limits{Ratio: 500}),
		{
			ID: "sparse-holes", Cls: "bomb", Expect: apply, Note: "holes must stay holes",
			Files: []string{"sparse-bomb.tar"}, Tree: map[string]string{"sp": fmt.Sprintf("size:%d", int64(sparseSize))},
		},
	}
}

// rawHeader is a ustar entry with its data, which archive/tar would not write.
func rawHeader(flag byte, name string, data []byte) []byte {
	h := make([]byte, 512, 1024)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:], fmt.Sprintf("%011o\x00%011o\x00", len(data), 1_000_000_000))
	copy(h[148:], "        ")
	h[156] = flag
	copy(h[257:], "ustar\x0000")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return slices.Concat(h, data, make([]byte, -len(data)&511))
}

func paxRecords(keysAndValues ...string) []byte {
	var out []byte
	for i := 0; i < len(keysAndValues); i += 2 {
		record := " " + keysAndValues[i] + "=" + keysAndValues[i+1] + "\n"
		n := len(record)
		for len(fmt.Sprint(n)) != n-len(record) {
			n = len(record) + len(fmt.Sprint(n))
		}
		out = fmt.Appendf(out, "%d%s", n, record)
	}
	return out
}

// judge says what is wrong with what came of a case.
func (j *hostileJob) judge(out hostileOutcome) []string {
	var bad []string
	add := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	for _, change := range out.outside {
		add("ESCAPE: %s", change)
	}
	refused := out.Class != ""
	switch {
	case out.crash != "":
		add("CRASH: %s", out.crash)
		return bad
	case refused && out.Class != classInvalid && out.Class != classExhausted:
		add("refused, but without a class that says so: %s", out.Error)
	case refused && j.c.wantClass != "" && out.Class != j.c.wantClass:
		add("refused as %s, not %s: %s", out.Class, j.c.wantClass, out.Error)
	}
	switch {
	case j.c.Expect == reject && !refused:
		add("ACCEPTED")
	case (j.c.Expect == apply || j.c.Expect == skip) && refused:
		add("REFUSED: %s", out.Error)
	}
	if out.written > j.maxWritten() {
		add("%d MiB were written", out.written>>20)
	}
	if out.Peak > maxMemory {
		add("%d MiB of memory", out.Peak>>20)
	}
	if !refused {
		bad = append(bad, j.checkTree(out.View)...)
	}
	return bad
}

// maxMemory is what extracting any layer may take, with the test binary itself
// and the race detector's shadow memory.
const maxMemory = 256 << 20

// maxWritten is what a case may leave on disk. The ratio is not looked at before
// the first 64 MiB.
func (j *hostileJob) maxWritten() int64 {
	if j.c.Cls == "bomb" {
		return 68 << 20
	}
	return 16 << 20
}

func (j *hostileJob) checkTree(view string) []string {
	var bad []string
	for name, want := range j.c.Tree {
		if j.mode.expect[j.c.ID] == contain {
			break
		}
		if got := j.look(view, name, want); got != want {
			bad = append(bad, fmt.Sprintf("WRONG: %q: want %s, got %.80s", name, want, got))
		}
	}
	for _, name := range j.c.Gone {
		if _, err := os.Lstat(filepath.Join(view, name)); err == nil {
			bad = append(bad, fmt.Sprintf("WRONG: %s is there", name))
		}
	}
	if j.c.Cls == "xattr" {
		bad = append(bad, j.checkXattrs()...)
	}
	return bad
}
