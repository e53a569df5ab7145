// SPDX-License-Identifier: Apache-2.0

package extstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// tempPrefix begins the names of directories that exports work in. Each is
// locked by the export it belongs to: what is not, a crash left.
const tempPrefix = ".export-"

// maxTempTries bounds how often a sweep may win the race for a new directory.
const maxTempTries = 100

// makeTemp makes a directory of this export's own.
func makeTemp(store *os.File) (*os.File, error) {
	for range maxTempTries {
		name := tempPrefix + rand.Text()
		if err := unix.Mkdirat(int(store.Fd()), name, 0o700); err != nil {
			return nil, fmt.Errorf("make directory %s/%s: %w", store.Name(), name, err)
		}
		temp, err := openIn(store, name, dirFlags, inTree)
		if errors.Is(err, unix.ENOENT) {
			continue // swept before it was locked
		}
		if err != nil {
			return nil, err
		}
		if holds(temp) {
			return temp, nil
		}
		if err := temp.Close(); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s: other exports remove every new directory: %w", store.Name(), unix.EBUSY)
}

// holds locks a directory, and says whether it is still there. On a file system
// without locks nothing is ever swept, and it is ours anyway.
func holds(temp *os.File) bool {
	if errors.Is(lock(temp), unix.EWOULDBLOCK) {
		return false
	}
	var st unix.Stat_t
	return unix.Fstat(int(temp.Fd()), &st) == nil && st.Nlink > 0
}

func lock(dir *os.File) error { return unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) }

// sweepTemp removes what exports that crashed left behind.
func sweepTemp(ctx context.Context, store *os.File, root *os.Root) error {
	dir, err := openIn(store, ".", dirFlags, inTree)
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	if err := errors.Join(err, dir.Close()); err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, tempPrefix) {
			continue
		}
		if err := sweepOne(store, root, name); err != nil {
			log.G(ctx).WithError(err).WithField("directory", store.Name()+"/"+name).Warn("what an interrupted export left can't be removed")
		}
	}
	return nil
}

func sweepOne(store *os.File, root *os.Root, name string) (err error) {
	dir, err := openIn(store, name, dirFlags, inTree)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if lock(dir) != nil {
		return nil // at work, or nobody can tell
	}
	return root.RemoveAll(name)
}
