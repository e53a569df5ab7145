// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestDescriptorsAreNotInherited reads the flags of the daemon's descriptors
// from /proc. Those that the daemon got from the test, and the test from
// whoever runs it, are left out.
func TestDescriptorsAreNotInherited(t *testing.T) {
	at := newPlace(t)
	p := startDaemon(t, at.args()...)
	_, err := proxyTo(t, at.address).Prepare(t.Context(), "a", "")
	must(t, err)
	given := inheritable(t, os.Getpid())
	for fd, target := range inheritable(t, p.cmd.Process.Pid) {
		if fd > 2 && given[fd] != target {
			t.Errorf("descriptor %d (%s) would be inherited", fd, target)
		}
	}
}

// inheritable lists the descriptors of a process without O_CLOEXEC and what
// they are open on.
func inheritable(t *testing.T, pid int) map[int]string {
	t.Helper()
	base := fmt.Sprintf("/proc/%d", pid)
	entries, err := os.ReadDir(filepath.Join(base, "fdinfo"))
	must(t, err)
	found := map[int]string{}
	for _, entry := range entries {
		info, err := os.ReadFile(filepath.Join(base, "fdinfo", entry.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // closed meanwhile
		}
		must(t, err)
		if fileFlags(t, string(info))&syscall.O_CLOEXEC != 0 {
			continue
		}
		fd, err := strconv.Atoi(entry.Name())
		must(t, err)
		found[fd], err = os.Readlink(filepath.Join(base, "fd", entry.Name()))
		must(t, err)
	}
	return found
}

// fileFlags finds the open flags in the text of a fdinfo file, in octal.
func fileFlags(t *testing.T, info string) int64 {
	t.Helper()
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, "flags:"); ok {
			flags, err := strconv.ParseInt(strings.TrimSpace(value), 8, 64)
			must(t, err)
			return flags
		}
	}
	t.Fatalf("no flags in %q", info)
	return 0
}
