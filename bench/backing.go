// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// backMemory has the machine's free memory backed before the clock starts: size bytes
// are taken, touched and given back. A virtual machine can hand free memory to its host
// (free page reporting), and touching such a page again is a fault of the host's: of one
// image that took 4.6 s and then 6.4, the profile's difference was in copying to new pages
// and in clearing them. Which run had to pay for it was chance. With size twice of what a
// run writes there were still such runs, with ten times fewer.
//
// It is taken from what is free, of which an eighth is left.
func backMemory(size int64) (err error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return fmt.Errorf("how much memory is free: %w", err)
	}
	free := int64(info.Freeram) * int64(info.Unit) //nolint:gosec // fits: it is memory
	size = min(size, free/8*7)
	if size <= 0 {
		return nil
	}
	b, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("take %d bytes of memory: %w", size, err)
	}
	defer func() { err = errors.Join(err, unix.Munmap(b)) }()
	for i := 0; i < len(b); i += os.Getpagesize() {
		b[i] = 1
	}
	return nil
}
