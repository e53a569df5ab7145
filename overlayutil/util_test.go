// SPDX-License-Identifier: Apache-2.0

package overlayutil

import (
	"errors"
	"os"
	"runtime"
	"testing"
)

// Containerd's mount code changes the working directory of a thread that it then
// lets end. Go cannot end the main thread: a mount made there would keep its
// layers busy until the process ends. Locked here, the main thread is never used.
func init() { runtime.LockOSThread() }

func isClass(err, class error) bool { return errors.Is(err, class) }

func mkdir(t testing.TB, path string) string {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func write(t testing.TB, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(path), 0o644); err != nil {
		t.Fatal(err)
	}
}

// openDir opens a directory for the length of the test.
func openDir(t testing.TB, path string) int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return int(f.Fd())
}

// names lists a directory.
func names(t testing.TB, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	list := []string{}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}
