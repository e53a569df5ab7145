// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/durable"
)

// volatileFile is in a root while a store without durability is open, and names the
// boot it was opened in. One of another boot says that the machine went down before
// everything was written, which nothing else would tell: overlayfs marks the workdir of
// a volatile mount for the same reason.
const volatileFile = "volatile"

// checkVolatile looks for what an earlier volatile store left, and marks the root if
// this one is volatile.
func (s *Store) checkVolatile() error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	marked, err := s.readVolatile()
	if err != nil {
		return err
	}
	if marked != "" && marked != boot {
		return fmt.Errorf("the machine went down while %s was used without durability, and layers may be incomplete: stop containerd, remove the images of this snapshotter and %s, and pull again: %w",
			s.path, s.path, errdefs.ErrFailedPrecondition)
	}
	if s.volatile {
		return durable.WriteFile(s.root, volatileFile, []byte(boot+"\n"), 0o600)
	}
	if marked == "" {
		return nil
	}
	return s.endVolatile() // of a process that crashed, or of other settings
}

// endVolatile makes durable what was written without durability.
func (s *Store) endVolatile() error {
	if err := unix.Syncfs(int(s.root.Fd())); err != nil {
		return fmt.Errorf("sync the file system of %s: %w", s.path, err)
	}
	return errors.Join(unlinkIfThere(s.root, volatileFile), s.root.Sync())
}

func (s *Store) readVolatile() (_ string, err error) {
	fd, err := unix.Openat(int(s.root.Fd()), volatileFile, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return "", nil
	}
	if err != nil {
		return "", &os.PathError{Op: "open", Path: filepath.Join(s.path, volatileFile), Err: err}
	}
	f := os.NewFile(uintptr(fd), volatileFile)
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := io.ReadAll(io.LimitReader(f, 128))
	if err != nil {
		return "", err
	}
	if boot := strings.TrimSpace(string(b)); boot != "" {
		return boot, nil
	}
	return "an unknown boot", nil
}

// bootID differs from boot to boot, see random(4).
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("tell one boot from another: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
