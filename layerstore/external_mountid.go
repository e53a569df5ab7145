// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// openInMount is openByComponent for a directory that must be in the mount of dir.
func openInMount(dir *os.File, rel string) (int, error) {
	fd, err := openByComponent(dir, rel)
	if err != nil {
		return -1, err
	}
	same, err := sameMount(int(dir.Fd()), fd)
	if err == nil && !same {
		err = unix.EXDEV
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// sameMount says whether two descriptors lead into the same mount, on kernels
// that have no better answer. A bind mount has the device number of what is
// below it.
func sameMount(a, b int) (bool, error) {
	mountA, err := mountID(a)
	if err != nil {
		return false, err
	}
	mountB, err := mountID(b)
	return mountA == mountB, err
}

func mountID(fd int) (string, error) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(info)) {
		if id, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			return strings.TrimSpace(id), nil
		}
	}
	return "", fmt.Errorf("/proc/self/fdinfo/%d names no mount", fd)
}
