// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// wantedNofile is the number of open files to ask for, containerd's own
// customary LimitNOFILE: extraction and deletion keep a descriptor for every
// level of a tree, many at once.
const wantedNofile = 1 << 20

// raiseNofile raises RLIMIT_NOFILE as far as the process may. A low limit
// makes the daemon slower under load, not wrong, so the result is only
// logged.
func raiseNofile(ctx context.Context) {
	limit, err := setNofile(wantedNofile)
	entry := log.G(ctx).WithField("soft", limit.Cur).WithField("hard", limit.Max)
	if err != nil {
		entry.WithError(err).Debug("limit of open files not raised")
		return
	}
	entry.Debug("limit of open files")
}

// setNofile sets both limits to at least wanted, or the soft one to the hard
// one where raising the hard one is not permitted. Neither is ever lowered.
// It returns the limits that hold afterwards.
func setNofile(wanted uint64) (unix.Rlimit, error) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		return old, err
	}
	both := unix.Rlimit{Cur: max(old.Cur, wanted), Max: max(old.Max, wanted)}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &both); err == nil {
		return both, nil
	}
	soft := unix.Rlimit{Cur: old.Max, Max: old.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &soft); err != nil {
		return old, err
	}
	return soft, nil
}
