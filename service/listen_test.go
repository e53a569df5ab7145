// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/internal/testutil"
)

// TestModes changes the umask of the whole process, so nothing here may run
// in parallel.
func TestModes(t *testing.T) {
	testutil.RequireRoot(t)
	for _, umask := range []int{0, 0o022, 0o777} {
		for group, want := range map[string]struct {
			dir, socket os.FileMode
			gid         uint32
		}{
			"":                      {0o700, 0o600, uint32(os.Getegid())},
			strconv.Itoa(testGroup): {0o710, 0o660, testGroup},
		} {
			t.Run(fmt.Sprintf("umask %#o group %q", umask, group), func(t *testing.T) {
				base := publicDir(t)
				address := filepath.Join(base, "a", "b", "s.sock")
				old := syscall.Umask(umask)
				l, err := listen(t.Context(), address, group)
				syscall.Umask(old)
				must(t, err)
				defer closeListener(t, l)
				checkFile(t, base, os.ModeDir|0o755, uint32(os.Getegid()))
				checkFile(t, filepath.Join(base, "a"), os.ModeDir|want.dir, want.gid)
				checkFile(t, filepath.Join(base, "a", "b"), os.ModeDir|want.dir, want.gid)
				checkFile(t, address, os.ModeSocket|want.socket, want.gid)
				checkFile(t, address+lockSuffix, 0o600, uint32(os.Getegid()))
			})
		}
	}
}

func TestExistingDirectoryIsLeftAlone(t *testing.T) {
	testutil.RequireRoot(t)
	dir := publicDir(t)
	must(t, os.Chmod(dir, 0o751))
	l, err := listen(t.Context(), filepath.Join(dir, "s.sock"), strconv.Itoa(testGroup))
	must(t, err)
	defer closeListener(t, l)
	checkFile(t, dir, os.ModeDir|0o751, uint32(os.Getegid()))
}

func TestDirectoryThatIsNone(t *testing.T) {
	file := filepath.Join(publicDir(t), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	_, err := listen(t.Context(), filepath.Join(file, "s.sock"), "")
	checkRefused(t, err, file)
}

func TestNotASocketIsLeftAlone(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"regular file":  func(p string) error { return os.WriteFile(p, []byte("mine"), 0o640) },
		"directory":     func(p string) error { return os.Mkdir(p, 0o750) },
		"pipe":          func(p string) error { return syscall.Mkfifo(p, 0o640) },
		"dangling link": func(p string) error { return os.Symlink("nowhere", p) },
		"link to a socket": func(p string) error {
			ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: p + ".stale", Net: "unix"})
			if err != nil {
				return err
			}
			ln.SetUnlinkOnClose(false)
			return errors.Join(ln.Close(), os.Symlink(p+".stale", p))
		},
	} {
		t.Run(name, func(t *testing.T) {
			address := filepath.Join(publicDir(t), "s.sock")
			must(t, make(address))
			before, err := os.Lstat(address)
			must(t, err)
			_, err = listen(t.Context(), address, "")
			checkRefused(t, err, address, "not a socket")
			after, err := os.Lstat(address)
			must(t, err)
			if !os.SameFile(before, after) || before.Mode() != after.Mode() || before.Size() != after.Size() {
				t.Errorf("it was %v, now it is %v", before, after)
			}
		})
	}
}

func TestLiveSocketIsNotStolen(t *testing.T) {
	address := filepath.Join(publicDir(t), "s.sock")
	other, err := net.Listen("unix", address)
	must(t, err)
	defer func() { must(t, other.Close()) }()
	_, err = listen(t.Context(), address, "")
	checkRefused(t, err, address, "served by another process")
	conn, err := net.Dial("unix", address)
	must(t, err)
	must(t, conn.Close())
}

// TestSocketOfAnotherKindIsNotRemoved: connect(2) fails at a datagram socket
// for its type, which says nothing about whether it is in use.
func TestSocketOfAnotherKindIsNotRemoved(t *testing.T) {
	address := filepath.Join(publicDir(t), "s.sock")
	other, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	must(t, err)
	defer func() { must(t, other.Close()) }()
	_, err = listen(t.Context(), address, "")
	checkRefused(t, err, address, "could not tell")
	if _, err := os.Lstat(address); err != nil {
		t.Error(err)
	}
}

func TestSecondListenerNamesTheHolder(t *testing.T) {
	address := filepath.Join(publicDir(t), "s.sock")
	l, err := listen(t.Context(), address, "")
	must(t, err)
	_, err = listen(t.Context(), address, "")
	checkRefused(t, err, address, fmt.Sprintf("process %d", os.Getpid()))
	// Without its socket the first one still drains; the lock is what counts.
	must(t, l.Close())
	_, err = listen(t.Context(), address, "")
	checkRefused(t, err, address)
	must(t, l.release())
	l, err = listen(t.Context(), address, "")
	must(t, err)
	closeListener(t, l)
}

func TestStaleSocketIsReplacedByOne(t *testing.T) {
	address := filepath.Join(publicDir(t), "s.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: address, Net: "unix"})
	must(t, err)
	stale.SetUnlinkOnClose(false)
	must(t, stale.Close())

	const racers = 16
	listeners := make([]*listener, racers)
	errs := make([]error, racers)
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() { listeners[i], errs[i] = listen(t.Context(), address, "") })
	}
	wg.Wait()
	winners := 0
	for i, err := range errs {
		if err != nil {
			checkRefused(t, err, address)
			continue
		}
		winners++
		t.Cleanup(func() { closeListener(t, listeners[i]) })
	}
	if winners != 1 {
		t.Fatalf("%d listeners at one address", winners)
	}
	conn, err := net.Dial("unix", address)
	must(t, err)
	must(t, conn.Close())
}

func TestCloseRemovesOnlyItsOwnSocket(t *testing.T) {
	address := filepath.Join(publicDir(t), "s.sock")
	l, err := listen(t.Context(), address, "")
	must(t, err)
	must(t, os.Remove(address))
	must(t, os.WriteFile(address, []byte("mine"), 0o600))
	closeListener(t, l)
	if data, err := os.ReadFile(address); err != nil || string(data) != "mine" {
		t.Errorf("the file put in place of the socket: %q, %v", data, err)
	}
}

func TestLockFileOfAnotherKind(t *testing.T) {
	address := filepath.Join(publicDir(t), "s.sock")
	must(t, syscall.Mkfifo(address+lockSuffix, 0o600))
	_, err := listen(t.Context(), address, "")
	checkRefused(t, err, address+lockSuffix, "not a regular file")
}

func TestGroups(t *testing.T) {
	for group, want := range map[string]int{"": noGroup, "root": 0, "54321": 54321, "0": 0} {
		a, err := newAccess(group)
		if err != nil || a.gid != want {
			t.Errorf("group %q is %d (%v), want %d", group, a.gid, err, want)
		}
	}
	for _, group := range []string{"no-such-group", "-1", "4294967295", "99999999999"} {
		if _, err := newAccess(group); !errdefs.IsInvalidArgument(err) {
			t.Errorf("group %q gives %v", group, err)
		}
	}
}

func checkFile(t *testing.T, path string, mode os.FileMode, gid uint32) {
	t.Helper()
	info, err := os.Lstat(path)
	must(t, err)
	if st := info.Sys().(*syscall.Stat_t); info.Mode() != mode || st.Gid != gid {
		t.Errorf("%s has mode %v and group %d, want %v and %d", path, info.Mode(), st.Gid, mode, gid)
	}
}

func checkRefused(t *testing.T, err error, want ...string) {
	t.Helper()
	if !errdefs.IsFailedPrecondition(err) {
		t.Fatalf("want FailedPrecondition, got %v", err)
	}
	for _, s := range want {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%q is not in the message: %v", s, err)
		}
	}
}

func closeListener(t *testing.T, l *listener) {
	t.Helper()
	must(t, l.Close())
	must(t, l.release())
}
