// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/internal/testutil"
)

// openAhead opens a store whose log is ahead, in dir.
func openAhead(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(filepath.Join(dir, "metadata.db"), aheadFrom(0))
	if err != nil {
		t.Fatal(err)
	}
	createAll(t, s, "first")
	if !s.log.isAhead() {
		t.Fatal("the log is not ahead")
	}
	return s
}

func createAll(t testing.TB, s *Store, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if _, err := create(t, s, snapshots.KindActive, key, "", nil); err != nil {
			t.Fatalf("create %s: %v", key, err)
		}
	}
}

// wantKeys says which snapshots are to be in a store.
func wantKeys(t testing.TB, s *Store, keys ...string) {
	t.Helper()
	all := dump(t, s)
	for _, key := range keys {
		if _, ok := all[key]; !ok {
			t.Errorf("%s is missing", key)
		}
	}
	if len(all) != len(keys) {
		t.Errorf("%d snapshots are there, want %v", len(all), keys)
	}
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// aheadCopy is what a power cut left of a store with some snapshots, whose log was ahead.
func aheadCopy(t *testing.T, keys ...string) (path string) {
	t.Helper()
	s := openAhead(t, t.TempDir())
	createAll(t, s, keys...)
	path = crashed(t, s)
	closeStore(t, s)
	return path
}

// After a power cut, whatever is in metadata.db: what was answered is there, also for who
// only looks.
func TestLogAheadSurvivesAPowerCut(t *testing.T) {
	path := aheadCopy(t, "a", "b")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, inspect := range map[string]func() (*Contents, error){
		"Inspect":     func() (*Contents, error) { return Inspect(path) },
		"InspectCopy": func() (*Contents, error) { return InspectCopy(context.Background(), path) },
	} {
		c, err := inspect()
		if err != nil || len(c.Snapshots) != 3 || len(c.Problems) > 0 {
			t.Errorf("%s: %+v, %v", name, c, err)
			continue
		}
		if differences, err := c.CompareLog(path); err != nil || len(differences) > 0 {
			t.Errorf("%s: %v, %v", name, differences, err)
		}
	}
	if err := CheckFormat(path); err != nil {
		t.Error(err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("looking changed it (%v)", err)
	}
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	wantKeys(t, s, "first", "a", "b")
	createAll(t, s, "c")
	closeStore(t, s)
	if err := sameContents(rebuilt(t, path), inspected(t, path)); err != nil {
		t.Error(err)
	}
}

// A repair of a store that was not closed is made of what its log says.
func TestFixesAfterAPowerCut(t *testing.T) {
	path := aheadCopy(t, "a")
	if err := ApplyFixes(path, []Fix{ReserveFix(5000)}); err != nil {
		t.Fatal(err)
	}
	c, err := Inspect(path)
	if err != nil || c.Reserved != 5000 || len(c.Snapshots) != 2 {
		t.Errorf("%+v, %v", c, err)
	}
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	wantKeys(t, s, "first", "a")
	if n := reserve(t, s); n != 5000 {
		t.Errorf("got number %d", n)
	}
	closeStore(t, s)
}

// A store that was closed is read by who knows nothing of logs that are ahead.
func TestClosedStoreIsNotAhead(t *testing.T) {
	dir := t.TempDir()
	closeStore(t, openAhead(t, dir))
	path := filepath.Join(dir, "metadata.db")
	f, _, err := readFormat(path, openTimeout)
	if err != nil || len(f.Incompatible) > 0 {
		t.Errorf("%+v, %v", f, err)
	}
	if state, err := logState(path); err != nil || state != stateComplete {
		t.Errorf("state %d, %v", state, err)
	}
	if err := sameContents(rebuilt(t, path), inspected(t, path)); err != nil {
		t.Error(err)
	}
}

// While the log is ahead nobody else opens the store, or takes it for one that crashed.
func TestOpenStoreIsAheadForOthers(t *testing.T) {
	s := openAhead(t, t.TempDir())
	defer closeStore(t, s)
	if f, err := InspectCopy(context.Background(), s.Path()); err != nil || len(f.Snapshots) != 1 {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := Inspect(s.Path()); !errdefs.IsUnavailable(err) {
		t.Errorf("got %v", err)
	}
	if _, err := lockAhead(s.Path(), false, 0); !errdefs.IsUnavailable(err) {
		t.Errorf("got %v", err)
	}
}

// What is torn at the end was answered to nobody. What is damaged before is nothing to go
// on with: it is refused, and nothing is changed.
func TestDamagedLogThatIsAhead(t *testing.T) {
	for name, test := range map[string]struct {
		damage func(b []byte, c *logContents) []byte
		keys   int // 0: it is refused
	}{
		"torn end":   {func(b []byte, c *logContents) []byte { return append(b[:c.end-7:c.end-7], 1, 2, 3) }, 6},
		"half frame": {func(b []byte, c *logContents) []byte { clear(b[c.end-40 : c.end]); return b }, 6},
		"middle":     {func(b []byte, _ *logContents) []byte { b[300] ^= 1; return b }, 0},
		"format":     {func(_ []byte, c *logContents) []byte { return futureLog(c.salt) }, 0},
		"gone":       {func([]byte, *logContents) []byte { return nil }, 0},
		"header":     {func(b []byte, _ *logContents) []byte { b[3] ^= 1; return b }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			path := aheadCopy(t, "a", "b", "c", "d", "e", "f")
			if name == "gone" || name == "header" { // what metadata.db says is asked then
				path = unscrambled(t)
			}
			c, err := readLog(LogPath(path))
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(LogPath(path))
			if err != nil {
				t.Fatal(err)
			}
			if b = test.damage(b, c); b == nil {
				err = os.Remove(LogPath(path))
			} else {
				err = os.WriteFile(LogPath(path), b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			if test.keys == 0 {
				refused(t, path, name)
				return
			}
			s, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := len(dump(t, s)); got != test.keys {
				t.Errorf("%d snapshots", got)
			}
			closeStore(t, s)
		})
	}
}

// refused makes sure that a store is not opened, and is left as it is.
func refused(t *testing.T, path, what string) {
	t.Helper()
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	class := errdefs.IsDataLoss
	if what == "format" {
		class = errdefs.IsFailedPrecondition
	}
	_, openErr := Open(path)
	_, inspectErr := Inspect(path)
	for _, err := range []error{openErr, inspectErr, CheckFormat(path)} {
		if !class(err) {
			t.Errorf("got %v", err)
		}
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("it was changed (%v)", err)
	}
}

// unscrambled is a store that was not closed, as a killed process leaves it.
func unscrambled(t *testing.T) (path string) {
	t.Helper()
	s := openAhead(t, t.TempDir())
	path = filepath.Join(t.TempDir(), "copy.db")
	for from, to := range map[string]string{s.Path(): path, LogPath(s.Path()): LogPath(path)} {
		b, err := os.ReadFile(from)
		if err := errors.Join(err, os.WriteFile(to, b, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	closeStore(t, s)
	return path
}

// futureLog is one of a Strata with a feature that nobody knows yet.
func futureLog(salt uint64) []byte {
	format := []byte(`{"version":2,"incompatible":["log-ahead","time-travel"]}`)
	return append(encodeHeader(stateAhead, salt), encodeFrame(salt, 7, appendEntry(nil, bucketMeta, keyFormat, format))...)
}

// A recovery that was interrupted, wherever, is done again.
func TestRecoveryIsDoneAgain(t *testing.T) {
	for name, interrupt := range map[string]func(path string) error{
		"new file begun": func(path string) error { return os.WriteFile(path+".tmp", []byte("half"), 0o600) },
		"emptied":        func(path string) error { return os.Truncate(path, 0) },
		"replaced": func(path string) error {
			saved, err := aheadOf(path)
			if err != nil {
				return err
			}
			return errors.Join(os.Remove(path), saved.Write(path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := aheadCopy(t, "a")
			if err := interrupt(path); err != nil {
				t.Fatal(err)
			}
			s, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			wantKeys(t, s, "first", "a")
			closeStore(t, s)
			if _, err := os.Stat(path + ".tmp"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("left behind: %v", err)
			}
		})
	}
}

// Where there is no room for a second metadata.db, the one that is not believed anyway
// makes room.
func TestRecoveryOnAFullDisk(t *testing.T) {
	testutil.RequireRoot(t)
	dir := testutil.LoopFSInMemory(t, "ext4", 64, "-q", "-m", "0")
	s := openAhead(t, dir)
	for i := range 300 {
		if err := createView(s, i); err != nil {
			t.Fatal(err)
		}
	}
	want := len(dump(t, s))
	db, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(LogPath(s.Path()))
	if err != nil {
		t.Fatal(err)
	}
	path := s.Path()
	closeStore(t, s)
	clear(db[2*os.Getpagesize():])
	if err := errors.Join(overwrite(path, db), overwrite(LogPath(path), log)); err != nil {
		t.Fatal(err)
	}
	ballast := testutil.NewBallast(t, dir)
	ballast.Leave(0)
	if s, err = Open(path); err != nil {
		t.Fatal(err)
	}
	if got := len(dump(t, s)); got != want {
		t.Errorf("%d snapshots, want %d", got, want)
	}
	if s.LogError() == nil {
		t.Error("a new log found room: the disk was not full")
	}
	ballast.Drop()
	closeStore(t, s)
	if s, err = Open(path); err != nil {
		t.Fatal(err)
	}
	if got := len(dump(t, s)); got != want || s.LogError() != nil {
		t.Errorf("%d snapshots, want %d (%v)", got, want, s.LogError())
	}
	closeStore(t, s)
}

// overwrite leaves the blocks of a file to it.
func overwrite(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	return errors.Join(err, f.Close())
}

// Whoever looks while a store is opened that was not closed sees all of it, and keeps nobody
// from opening it.
func TestLookingWhileItIsRecovered(t *testing.T) {
	for range 5 {
		path := aheadCopy(t, "a", "b")
		done := make(chan error, 4)
		for range cap(done) {
			go func() {
				var err error
				for range 20 {
					c, inspectErr := InspectCopy(context.Background(), path)
					if inspectErr == nil && len(c.Snapshots) != 3 {
						inspectErr = fmt.Errorf("%d snapshots", len(c.Snapshots))
					}
					err = errors.Join(err, inspectErr)
				}
				done <- err
			}()
		}
		s, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		for range cap(done) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		closeStore(t, s)
	}
}

func TestMarkIsWrittenOnce(t *testing.T) {
	s := openAhead(t, t.TempDir())
	defer closeStore(t, s)
	createAll(t, s, "a", "b")
	err := s.View(func(tx *Tx) error {
		if got := strings.Count(string(tx.bucket(bucketMeta).Get(keyFormat)), featureAhead); got != 1 {
			t.Errorf("it is there %d times", got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
