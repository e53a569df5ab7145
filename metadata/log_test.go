// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"
)

// rebuilt makes a store of the log of the one at path, and returns what is in it.
func rebuilt(t testing.TB, path string) *Contents {
	t.Helper()
	saved, err := ReadSaved(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(saved.Lost) > 0 {
		t.Fatal(saved.Lost)
	}
	made := filepath.Join(t.TempDir(), "made.db")
	if err := saved.Write(made); err != nil {
		t.Fatal(err)
	}
	return inspected(t, made)
}

// inspected is what is in a store, copied so that it may be open.
func inspected(t testing.TB, path string) *Contents {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy.db")
	// Beside a log that is not ahead it is metadata.db that is read.
	if err := errors.Join(os.WriteFile(copied, b, 0o600), os.WriteFile(LogPath(copied), encodeHeader(stateComplete, 1), 0o600)); err != nil {
		t.Fatal(err)
	}
	c, err := Inspect(copied)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func sameContents(a, b *Contents) error {
	a.last, b.last = 0, 0 // transactions of different stores
	if !reflect.DeepEqual(a, b) {
		return fmt.Errorf("%+v\nis not\n%+v", a, b)
	}
	return nil
}

// change makes a random change of a store.
func change(t testing.TB, rt *rapid.T, s *Store, i int) {
	name := fmt.Sprintf("k8s.io/%d/n", i)
	earlier := fmt.Sprintf("k8s.io/%d/n", rapid.IntRange(0, i).Draw(rt, "earlier"))
	var err error
	switch rapid.IntRange(0, 5).Draw(rt, "change") {
	case 0:
		_, err = create(t, s, snapshots.KindActive, name, "", map[string]string{snapshots.LabelSnapshotRef: digest.FromString(name).String()})
	case 1:
		_, err = create(t, s, snapshots.KindView, name, earlier, nil)
	case 2:
		_, err = create(t, s, snapshots.KindActive, name, earlier, nil)
	case 3:
		l := modelLayer(reserve(t, s))
		l.DiffID = digest.FromString(name)
		_, err = commit(s, Commit{Key: earlier, Name: name, Layer: l, Blob: digest.FromString("blob" + name), DiffID: l.DiffID})
	case 4:
		err = s.Update(context.Background(), func(tx *Tx) error {
			_, err := tx.UpdateInfo(snapshots.Info{Name: earlier, Labels: map[string]string{"a": name}}, "labels.a")
			return err
		})
	case 5:
		err = s.Update(context.Background(), func(tx *Tx) error { _, err := tx.Remove(earlier); return err })
	}
	if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsAlreadyExists(err) && !errdefs.IsFailedPrecondition(err) && !errdefs.IsInvalidArgument(err) {
		rt.Fatal(err)
	}
}

// After every change, and every start, the log alone makes the same store: also while it
// is made anew all the time.
func TestLogIsTheStore(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		path := filepath.Join(t.TempDir(), "metadata.db")
		opt := aheadFrom(rapid.IntRange(0, 20).Draw(rt, "ahead from"))
		if rapid.Bool().Draw(rt, "volatile") {
			opt = Volatile()
		}
		s, err := Open(path, opt)
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		for i := range rapid.IntRange(1, 30).Draw(rt, "changes") {
			if rapid.Bool().Draw(rt, "renew") {
				s.log.mu.Lock()
				s.log.limit = -1 << 40
				s.log.mu.Unlock()
			}
			change(t, rt, s, i)
			switch rapid.IntRange(0, 9).Draw(rt, "after") {
			case 0:
				if err := s.Close(); err != nil {
					rt.Fatal(err)
				}
				if s, err = Open(path, opt); err != nil {
					rt.Fatal(err)
				}
			case 1:
				s.log.renewal.Wait()
			}
			if err := s.LogError(); err != nil {
				rt.Fatal(err)
			}
			if err := sameSaved(path, s); err != nil {
				rt.Fatal(err)
			}
		}
		if err := sameContents(rebuilt(t, path), inspected(t, path)); err != nil {
			rt.Fatal(err)
		}
	})
}

// sameSaved holds the log against the open store.
func sameSaved(path string, s *Store) error {
	scan := newScan()
	saved, err := ReadSaved(path)
	if err := errors.Join(err, s.db.View(scan.read)); err != nil {
		return err
	}
	c := scan.c
	if len(saved.Lost) > 0 || !reflect.DeepEqual(saved.Snapshots, c.Snapshots) || !reflect.DeepEqual(saved.Layers, c.Layers) || saved.Reserved != c.Reserved {
		return fmt.Errorf("the log says %+v\nand the store %+v", saved, c)
	}
	return nil
}

// fill makes a store of some pages, with snapshots on each other, and closes it.
func fill(t testing.TB, path string, count int) {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	parent := ""
	for i := range count {
		name := fmt.Sprintf("k8s.io/%d/n", i)
		if _, err := create(t, s, snapshots.KindActive, name, parent, map[string]string{"label": digest.FromString(name).String()}); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			if _, err := commit(s, Commit{Key: name, Name: name + "c", Layer: modelLayer(reserve(t, s))}); err != nil {
				t.Fatal(err)
			}
			parent = name + "c"
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// A store that is gone is not made anew where its log, or its caller, says there was one.
func TestLostStoreIsNotReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metadata.db")
	fill(t, path, 2)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); !errdefs.IsDataLoss(err) {
		t.Errorf("with a log: %v", err)
	}
	if err := os.Remove(LogPath(path)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, MustExist()); !errdefs.IsDataLoss(err) {
		t.Errorf("that must exist: %v", err)
	}
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// A log that was damaged, cut off or is missing is made anew at the next start, and what
// can still be read of it says that it is not all.
func TestDamagedLogIsMadeAnew(t *testing.T) {
	for name, damage := range map[string]func(b []byte) []byte{
		"missing": func([]byte) []byte { return nil },
		"empty":   func([]byte) []byte { return []byte{} },
		"header":  func(b []byte) []byte { b[20] ^= 1; return b },
		"first":   func(b []byte) []byte { b[logHeader+40] ^= 1; return b },
		"middle":  func(b []byte) []byte { b[5000] ^= 1; return b },
		"hole":    func(b []byte) []byte { clear(b[2048:4096]); return b },
		"cut off": func(b []byte) []byte { return b[:9000] },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "metadata.db")
			fill(t, path, 60)
			b, err := os.ReadFile(LogPath(path))
			if err != nil {
				t.Fatal(err)
			}
			if b = damage(b); b == nil {
				err = os.Remove(LogPath(path))
			} else {
				err = os.WriteFile(LogPath(path), b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			saved, err := ReadSaved(path)
			if name == "cut off" { // between two transactions nothing tells
				err = nil
			} else if err == nil && len(saved.Lost) == 0 {
				t.Error("nothing seems to be lost")
			}
			if err != nil && !errdefs.IsDataLoss(err) && !errdefs.IsNotFound(err) {
				t.Error(err)
			}
			s, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if err := sameContents(rebuilt(t, path), inspected(t, path)); err != nil {
				t.Error(err)
			}
		})
	}
}

// What a power cut left of the frame of a transaction that was not committed is no damage,
// and is gone after the next start.
func TestTornEndOfTheLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metadata.db")
	fill(t, path, 10)
	c, err := readLog(LogPath(path))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(LogPath(path), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(encodeFrame(c.salt, c.last+1, []byte("abc"))[:20], c.end)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	contents, err := Inspect(path)
	if err != nil {
		t.Fatal(err)
	}
	if differences, err := contents.CompareLog(path); err != nil || len(differences) > 0 {
		t.Errorf("%v, %v", differences, err)
	}
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := create(t, s, snapshots.KindActive, "next", "", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := sameContents(rebuilt(t, path), inspected(t, path)); err != nil {
		t.Error(err)
	}
}

// A transaction that was not committed is not in the log.
func TestFailedCommitIsNotInTheLog(t *testing.T) {
	s := openStore(t)
	if _, err := create(t, s, snapshots.KindActive, "a", "", nil); err != nil {
		t.Fatal(err)
	}
	before := rebuilt(t, s.Path())
	payload := appendEntry(nil, bucketSnapshots, numberKey(999), (&record{name: "never"}).encode())
	if err := errors.Join(s.log.append(s.log.last+1, payload), s.log.void()); err != nil {
		t.Fatal(err)
	}
	if err := sameContents(rebuilt(t, s.Path()), before); err != nil {
		t.Error(err)
	}
	if _, err := create(t, s, snapshots.KindActive, "b", "", nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.LogError(), sameContents(rebuilt(t, s.Path()), inspected(t, s.Path()))); err != nil {
		t.Error(err)
	}
}

// A log that can't be written to says so, keeps nobody from writing to the store, and is
// made anew.
func TestLogThatCannotBeWritten(t *testing.T) {
	s := openStore(t)
	readOnly, err := os.Open(s.log.path)
	if err != nil {
		t.Fatal(err)
	}
	good := s.log.f
	s.log.f = readOnly
	if _, err := create(t, s, snapshots.KindActive, "a", "", nil); err != nil {
		t.Fatal(err)
	}
	if s.LogError() == nil {
		t.Error("no error")
	}
	if _, err := ReadSaved(s.Path()); !errdefs.IsNotFound(err) {
		t.Errorf("what is not all is believed: %v", err)
	}
	if err := good.Close(); err != nil {
		t.Fatal(err)
	}
	s.log.mu.Lock()
	s.log.retry = s.log.retry.Add(-2 * logRetry)
	s.log.mu.Unlock()
	if _, err := create(t, s, snapshots.KindActive, "b", "", nil); err != nil {
		t.Fatal(err)
	}
	s.log.renewal.Wait()
	if err := errors.Join(s.LogError(), sameContents(rebuilt(t, s.Path()), inspected(t, s.Path()))); err != nil {
		t.Error(err)
	}
}

// Many writers, while the log is made anew again and again.
func TestLogOfManyWriters(t *testing.T) {
	s := openStore(t)
	s.log.limit = -1 << 40
	done := make(chan error)
	for w := range 8 {
		go func() {
			var err error
			for i := range 30 {
				name := fmt.Sprintf("ns/%d/n", w*100+i)
				_, createErr := create(t, s, snapshots.KindActive, name, "", nil)
				err = errors.Join(err, createErr)
				if i%2 == 0 {
					err = errors.Join(err, s.Update(context.Background(), func(tx *Tx) error { _, err := tx.Remove(name); return err }))
				}
			}
			done <- err
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	s.log.renewal.Wait()
	if err := errors.Join(s.LogError(), sameContents(rebuilt(t, s.Path()), inspected(t, s.Path()))); err != nil {
		t.Error(err)
	}
}

func FuzzLog(f *testing.F) {
	path := filepath.Join(f.TempDir(), "metadata.db")
	fill(f, path, 5)
	b, err := os.ReadFile(LogPath(path))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:2000])
	f.Add(encodeHeader(stateComplete, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "metadata.db")
		if err := os.WriteFile(LogPath(path), b, 0o600); err != nil {
			t.Fatal(err)
		}
		saved, err := ReadSaved(path)
		if err == nil {
			err = saved.Write(path)
		}
		if err != nil && !errdefs.IsDataLoss(err) {
			t.Error(err)
		}
		payload := map[string]int{}
		_ = entries(b, func(bucket, _, _ []byte) { payload[string(bucket)]++ })
		if len(slices.Collect(maps.Keys(payload))) > len(loggedBuckets) {
			t.Error(payload)
		}
	})
}
