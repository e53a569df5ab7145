// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// diffFuzz makes random changes. What does not work (a rename onto a directory
// that is not empty, a file below a file) does nothing.
type diffFuzz struct {
	*rand.Rand
	root string
}

func (z diffFuzz) pick(from ...string) string { return from[z.IntN(len(from))] }

// path is one of few, so that changes meet.
func (z diffFuzz) path() string {
	parts := []string{z.root}
	for range 1 + z.IntN(3) {
		parts = append(parts, z.pick("a", "b", "d", "e", "sub", "l1", "x"))
	}
	return filepath.Join(parts...)
}

// existing is a path that is there.
func (z diffFuzz) existing() string {
	dir := z.root
	for {
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) == 0 {
			return dir
		}
		dir = filepath.Join(dir, entries[z.IntN(len(entries))].Name())
		if z.IntN(2) == 0 {
			return dir
		}
	}
}

var diffChanges = []func(z diffFuzz) error{
	func(z diffFuzz) error { return z.write(z.path(), unix.O_CREAT, fmt.Sprint(z.IntN(3))) },
	func(z diffFuzz) error { return z.write(z.existing(), unix.O_TRUNC, "new content") },
	func(z diffFuzz) error { return os.Mkdir(z.path(), 0o755) },
	func(z diffFuzz) error { return os.MkdirAll(z.path(), 0o700) },
	func(z diffFuzz) error { return os.RemoveAll(z.below(z.existing())) },
	func(z diffFuzz) error { return os.Remove(z.existing()) },
	func(z diffFuzz) error { return unix.Rename(z.existing(), z.path()) },
	func(z diffFuzz) error { return unix.Rename(z.existing(), z.existing()) },
	func(z diffFuzz) error {
		return unix.Renameat2(unix.AT_FDCWD, z.existing(), unix.AT_FDCWD, z.existing(), unix.RENAME_EXCHANGE)
	},
	func(z diffFuzz) error { return os.Link(z.existing(), z.path()) },
	func(z diffFuzz) error { return os.Symlink(z.pick("a", "d", "x", "/d/sub"), z.path()) },
	func(z diffFuzz) error { return os.Lchown(z.existing(), z.IntN(3), 100_000*z.IntN(3)) },
	func(z diffFuzz) error { return z.chmod(z.existing()) },
	func(z diffFuzz) error {
		return unix.Lsetxattr(z.existing(), z.pick("user.a", "user.b"), []byte(z.pick("", "1", "\x00\n=")), 0)
	},
	func(z diffFuzz) error { return unix.Lsetxattr(z.existing(), "security.capability", []byte(diffCap), 0) },
	func(z diffFuzz) error { return z.touch(z.existing()) },
	func(z diffFuzz) error { return z.write(z.existing(), 0, "") },
	func(z diffFuzz) error { return z.replaceDir(z.existing()) },
	func(z diffFuzz) error { return unix.Mknod(z.path(), unix.S_IFIFO|0o640, 0) },
	func(z diffFuzz) error { return unix.Mknod(z.path(), unix.S_IFCHR|0o640, int(unix.Mkdev(9, 300))) },
	func(z diffFuzz) error { return os.Truncate(z.existing(), int64(z.IntN(20_000))) },
}

// below keeps the root from being removed.
func (z diffFuzz) below(path string) string {
	if path == z.root {
		return filepath.Join(z.root, "none")
	}
	return path
}

func (z diffFuzz) chmod(path string) error {
	if fi, err := os.Lstat(path); err != nil || fi.Mode()&os.ModeSymlink != 0 {
		return err
	}
	return unix.Chmod(path, uint32(z.IntN(0o10000))|0o400)
}

func (z diffFuzz) touch(path string) error {
	at := unix.Timespec{Sec: 1_300_000_000 + int64(z.IntN(3)), Nsec: int64(z.IntN(2)) * 123}
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
}

// write does not wait for the other end of a fifo.
func (z diffFuzz) write(path string, flags int, data string) error {
	fd, err := unix.Open(path, flags|unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte(data))
	return errors.Join(err, unix.Close(fd))
}

func (z diffFuzz) replaceDir(path string) error {
	if fi, err := os.Lstat(path); err != nil || !fi.IsDir() || path == z.root {
		return err
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	return os.Mkdir(path, 0o755)
}

// diffRandom returns how many random trees a test makes: a few seconds' worth, or
// as many as STRATA_DIFF_RANDOM says.
func diffRandom(t *testing.T) (rounds int) {
	rounds = 25
	if text := os.Getenv("STRATA_DIFF_RANDOM"); text != "" {
		_, err := fmt.Sscan(text, &rounds)
		diffMust(t, err)
	}
	return rounds
}

// Random changes, compared after every few of them: the diff, applied over the
// parent, is what the container sees, and no different from what containerd's
// differ yields.
func TestDiffRandom(t *testing.T) {
	modes := map[string][]string{"plain": nil, "moves": diffMoves, "metacopy": diffMeta}
	for name, options := range modes {
		for seed := range diffRandom(t) {
			t.Run(fmt.Sprint(name, seed), func(t *testing.T) {
				s := newDiffStack(t, options, diffBase(t))
				z := diffFuzz{rand.New(rand.NewPCG(uint64(seed), 7)), s.merged}
				var log []string
				for range 3 {
					for range 1 + z.IntN(12) {
						i := z.IntN(len(diffChanges))
						if diffChanges[i](z) == nil {
							log = append(log, fmt.Sprint(i))
						}
					}
					if s.checkRoundTrip(); t.Failed() {
						t.Fatalf("changes: %s", strings.Join(log, " "))
					}
				}
			})
		}
	}
}
