// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const holdEnv = "STRATA_TEST_HOLD_LOCK"

// TestMain lets the test binary be the other process that holds a lock.
func TestMain(m *testing.M) {
	if path := os.Getenv(holdEnv); path != "" {
		if _, err := lock(path); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("held")
		select {}
	}
	os.Exit(m.Run())
}

func TestLockNamesItsHolderAndEndsWithIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holdEnv+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 5)
	if _, err := out.Read(line); err != nil || string(line) != "held\n" {
		t.Fatalf("the other process said %q, %v", line, err)
	}
	_, err = lock(path)
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", cmd.Process.Pid)) {
		t.Errorf("got %v, want ErrUnavailable that names process %d", err, cmd.Process.Pid)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	l, err := lock(path)
	if err != nil {
		t.Fatalf("after its holder was killed: %v", err)
	}
	if err := l.Release(); err != nil {
		t.Error(err)
	}
}

func lock(path string) (*Lock, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	l, err := Acquire(dir, filepath.Base(path))
	return l, errors.Join(err, dir.Close())
}

func TestLockTakesAFileOnly(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.WriteFile(target, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "fifo"} {
		if _, err := lock(filepath.Join(dir, name)); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, err := os.ReadFile(target); err != nil || string(b) != "precious" {
		t.Errorf("the target holds %q, %v", b, err)
	}
}

func TestLockUnderAnyUmask(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	old := unix.Umask(0o777)
	l, err := lock(path)
	unix.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	if err := l.Release(); err != nil {
		t.Error(err)
	}
}

func TestWriteFile(t *testing.T) {
	path := t.TempDir()
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close() //nolint:errcheck // a directory opened for reading
	for i, want := range []string{"first, which is longer", "second", "third"} {
		write := WriteFile
		if i == 2 {
			write = ReplaceFile
		}
		if err := write(dir, "f", []byte(want), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(path, "f"))
		if err != nil || string(got) != want {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
	entries, err := os.ReadDir(path)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestSharedServesWithALaterRun(t *testing.T) {
	var state, seen atomic.Int64 // seen is the state as of the last run's start
	errOdd := errors.New("odd")
	s := NewShared(func() error {
		now := state.Load()
		seen.Store(now)
		if now%2 == 1 {
			return errOdd
		}
		return nil
	})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				mine := state.Add(2)
				if err := s.Do(); err != nil {
					t.Error(err)
				}
				if seen.Load() < mine {
					t.Errorf("served by a run that saw %d, before %d", seen.Load(), mine)
				}
			}
		})
	}
	wg.Wait()
	state.Add(1)
	if err := s.Do(); !errors.Is(err, errOdd) {
		t.Errorf("got %v", err)
	}
}

func TestSharedIsShared(t *testing.T) {
	began, hold := make(chan struct{}, 100), make(chan struct{})
	var runs atomic.Int64
	s := NewShared(func() error {
		runs.Add(1)
		began <- struct{}{}
		<-hold
		return nil
	})
	var wg sync.WaitGroup
	ask := func() { wg.Go(func() { _ = s.Do() }) }
	ask()
	<-began
	for range 50 {
		ask()
	}
	for waiting := 0; waiting < 50; {
		s.mu.Lock()
		if s.next != nil {
			waiting = s.next.callers
		}
		s.mu.Unlock()
		runtime.Gosched()
	}
	close(hold)
	wg.Wait()
	if n := runs.Load(); n != 2 {
		t.Errorf("51 callers took %d runs, want 2", n)
	}
}
