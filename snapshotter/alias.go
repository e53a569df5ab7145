// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/strata-snapshotter/strata/overlayutil"
	"golang.org/x/sys/unix"
)

// cleanAlias returns a path of root that mount options can name. Escaping would
// satisfy the kernel, but not containerd: its mount code splits a long lowerdir
// option at every ':', and its walking differ takes upperdir as it stands. A
// root whose path needs escaping is therefore served under a link without such
// characters.
func cleanAlias(root, dir string) (string, error) {
	if !overlayutil.NeedsEscape(root) {
		return root, nil
	}
	if dir == "" {
		dir = defaultAliasDir()
	}
	if overlayutil.NeedsEscape(dir) {
		return "", fmt.Errorf("root %s contains ':', ',' or '\\', and so does %s, where a clean link to it would be: %w", root, dir, errdefs.ErrInvalidArgument)
	}
	if err := makePrivateDir(dir); err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(root))
	link := filepath.Join(dir, hex.EncodeToString(sum[:8]))
	err := os.Symlink(root, link)
	if errors.Is(err, os.ErrExist) {
		var target string
		if target, err = os.Readlink(link); err == nil && target != root {
			err = fmt.Errorf("%s leads to %s, not to %s: remove it: %w", link, target, root, errdefs.ErrFailedPrecondition)
		}
	}
	if err != nil {
		return "", fmt.Errorf("link to root %s: %w", root, err)
	}
	return link, nil
}

// defaultAliasDir is a directory that goes with the next boot, as mounts do.
func defaultAliasDir() string {
	if os.Geteuid() == 0 && unix.Access("/run", unix.W_OK) == nil {
		return "/run/containerd-strata-grpc/roots"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "containerd-strata-grpc/roots")
	}
	return filepath.Join(os.TempDir(), "containerd-strata-roots-"+strconv.Itoa(os.Geteuid()))
}

// makePrivateDir makes sure that nobody else can put a link of theirs in dir.
func makePrivateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("directory for a clean link to the root: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return fmt.Errorf("stat %s: %w", dir, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return fmt.Errorf("%s must be a directory of uid %d that nobody else can write to: %w", dir, os.Geteuid(), errdefs.ErrFailedPrecondition)
	}
	return nil
}
