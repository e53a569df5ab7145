// SPDX-License-Identifier: Apache-2.0

package layerindex

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

var ctx = context.Background()

// indexOf builds the index of a directory, into a file that goes with the test.
func indexOf(t *testing.T, dir *os.File) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "index"))
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	w := NewWriter(f)
	must(t, Build(ctx, dir, w, nil))
	must(t, w.Finish())
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openDir(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	return f
}

func problems(t *testing.T, dir, index *os.File, opts Options) []string {
	t.Helper()
	var found []string
	_, err := Verify(ctx, dir, index, opts, func(p Problem) error {
		found = append(found, string(p.Kind)+" "+p.Path)
		return nil
	})
	must(t, err)
	slices.Sort(found)
	return found
}

// What is unexpected is found in as many passes as it takes, and nothing else.
func TestUnexpectedInPasses(t *testing.T) {
	root := t.TempDir()
	for i := range 40 {
		must(t, os.MkdirAll(filepath.Join(root, fmt.Sprintf("d%d/e", i)), 0o755))
		must(t, os.WriteFile(filepath.Join(root, fmt.Sprintf("d%d/e/f", i)), nil, 0o600))
	}
	dir := openDir(t, root)
	index := indexOf(t, dir)
	var want []string
	for i := range 20 {
		must(t, os.MkdirAll(filepath.Join(root, fmt.Sprintf("d%d/new/below", i)), 0o755))
		want = append(want, fmt.Sprintf("unexpected d%d/new", i))
	}
	slices.Sort(want)
	st, err := index.Stat()
	must(t, err)
	for _, perPass := range []uint64{1, 7, 50, passEntries} {
		var found []string
		v := &verifier{
			report: func(p Problem) error {
				found = append(found, string(p.Kind)+" "+p.Path)
				return nil
			},
			content: newContent(ctx, nil), at: place{root: dir}, perPass: perPass,
		}
		must(t, v.unexpected(func() (*Reader, error) { return NewReader(index, st.Size()) }))
		if slices.Sort(found); !slices.Equal(found, want) {
			t.Errorf("%d a pass: %q", perPass, found)
		}
	}
}

// One entry goes and another comes: the number of names is the same.
func TestOneForAnother(t *testing.T) {
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "old"), nil, 0o600))
	dir := openDir(t, root)
	index := indexOf(t, dir)
	must(t, os.Rename(filepath.Join(root, "old"), filepath.Join(root, "new")))
	if got := problems(t, dir, index, Options{}); !slices.Equal(got, []string{"missing old", "mtime ", "unexpected new"}) {
		t.Errorf("found %q", got)
	}
}

// A directory that became a link is not followed, and what was in it is missing.
func TestLinksAreNotFollowed(t *testing.T) {
	root := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(root, "d/e"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "d/e/f"), []byte("x"), 0o600))
	dir := openDir(t, root)
	index := indexOf(t, dir)
	must(t, os.Rename(filepath.Join(root, "d"), filepath.Join(t.TempDir(), "elsewhere")))
	must(t, os.Symlink(filepath.Dir(root), filepath.Join(root, "d")))
	got := problems(t, dir, index, Options{})
	if !slices.Equal(got, []string{"missing d/e", "missing d/e/f", "mtime ", "type d"}) {
		t.Errorf("found %q", got)
	}
}

func TestMetadataOnlyReadsNoContent(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "f")
	must(t, os.WriteFile(path, []byte("content"), 0o600))
	must(t, os.Chtimes(path, time.Unix(5, 0), time.Unix(5, 0)))
	dir := openDir(t, root)
	index := indexOf(t, dir)
	must(t, os.WriteFile(path, []byte("Content"), 0o600))
	must(t, os.Chtimes(path, time.Unix(5, 0), time.Unix(5, 0)))
	if got := problems(t, dir, index, Options{MetadataOnly: true}); len(got) != 0 {
		t.Errorf("found %q", got)
	}
	if got := problems(t, dir, index, Options{}); !slices.Equal(got, []string{"content f"}) {
		t.Errorf("found %q", got)
	}
}

// Reading does not change when a file was last read.
func TestReadingLeavesNoTrace(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "f")
	must(t, os.WriteFile(path, []byte("content"), 0o600))
	must(t, os.Chtimes(path, time.Unix(5, 0), time.Unix(500, 0)))
	dir := openDir(t, root)
	if got := problems(t, dir, indexOf(t, dir), Options{}); len(got) != 0 {
		t.Errorf("found %q", got)
	}
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	if st.Atim.Sec != 5 {
		t.Errorf("it was read at %d", st.Atim.Sec)
	}
}

func TestPaceAndContext(t *testing.T) {
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "f"), make([]byte, 3*readSize+1), 0o600))
	dir := openDir(t, root)
	index := indexOf(t, dir)
	asked := int64(0)
	stats, err := Verify(ctx, dir, index, Options{Pace: func(_ context.Context, n int64) error {
		asked += n
		return nil
	}}, func(Problem) error { return nil })
	if want := int64(3*readSize + 1 + 2*entryCost); err != nil || asked != want || stats != (Stats{Entries: 2, Bytes: 3*readSize + 1}) {
		t.Errorf("asked for %d, want %d; %+v, %v", asked, want, stats, err)
	}
	stop := errors.New("stop")
	_, err = Verify(ctx, dir, index, Options{Pace: func(context.Context, int64) error { return stop }}, func(Problem) error { return nil })
	if !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := Verify(ended, dir, index, Options{}, func(Problem) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// More files with several names than Build remembers are files of their own in the index.
func TestBuildForgetsLinks(t *testing.T) {
	b := &builder{linked: map[inode]string{}}
	for i := range maxLinked + 10 {
		st := unix.Stat_t{Ino: uint64(i), Nlink: 2}
		b.link(&st, "first")
		if _, seen := b.link(&st, "second"); seen != (i < maxLinked) {
			t.Fatalf("number %d: %v", i, seen)
		}
	}
}

func TestDamagedIndex(t *testing.T) {
	root := t.TempDir()
	dir := openDir(t, root)
	index := indexOf(t, dir)
	_, err := index.WriteAt([]byte{0xff}, 25)
	must(t, err)
	if _, err := Verify(ctx, dir, index, Options{}, func(Problem) error { return nil }); !errdefs.IsDataLoss(err) {
		t.Errorf("got %v", err)
	}
}

// The checksum of a file with holes is the same however it is cut into parts, and
// whatever is kept as a hole; and it is not if a byte differs.
func TestHashOfHoles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		data := make([]byte, rapid.IntRange(1, 10*sparseBlock).Draw(t, "size"))
		for range rapid.IntRange(0, 20).Draw(t, "bytes") {
			data[random.IntN(len(data))] = byte(random.IntN(256))
		}
		sum := func() uint64 {
			h := NewSparseHash()
			for at := 0; at < len(data); {
				n := min(1+random.IntN(2*sparseBlock), len(data)-at)
				if part := data[at : at+n]; random.IntN(2) == 0 || strings.Trim(string(part), "\x00") != "" {
					h.Add(part, int64(at))
				}
				at += n
			}
			return h.Sum64()
		}
		first := sum()
		if again := sum(); again != first {
			t.Fatalf("%x and %x", first, again)
		}
		data[random.IntN(len(data))] ^= 1
		if other := sum(); other == first {
			t.Fatal("another byte, the same checksum")
		}
	})
}
