// SPDX-License-Identifier: Apache-2.0

package testimage

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// applets are the busybox commands that the images' scripts use.
var applets = []string{
	"cat", "chmod", "chown", "echo", "false", "find", "grep", "head", "id", "ln", "ls", "mkdir", "mount",
	"mv", "ps", "rm", "rmdir", "sh", "sleep", "sort", "stat", "sync", "test", "touch", "true", "wc",
}

// Greeting is the content of /etc/greeting in a Sample image.
const Greeting = "hello from a layer\n"

// FindBusybox gives the path of a statically linked busybox: the first that is one
// of those in the directories given, then on the PATH and in /bin.
func FindBusybox(dirs ...string) (string, error) {
	var candidates []string
	for _, dir := range dirs {
		candidates = append(candidates, filepath.Join(dir, "busybox"))
	}
	if p, err := exec.LookPath("busybox"); err == nil {
		candidates = append(candidates, p)
	}
	for _, p := range append(candidates, "/bin/busybox") {
		if isStatic(p) {
			return p, nil
		}
	}
	return "", errors.New("no statically linked busybox found: install the package busybox-static or run hack/deps.sh demo")
}

// isStatic tells whether path is an ELF program that asks for no dynamic linker: an
// image has no libraries.
func isStatic(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // only read from
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}

// Base is a layer with the busybox program of that path, its usual command names
// and the few files and directories that a container expects.
func Base(busybox string) (Layer, error) {
	program, err := os.ReadFile(busybox)
	if err != nil {
		return nil, fmt.Errorf("reading busybox: %w", err)
	}
	layer := Layer{
		Dir("bin"), Program("bin/busybox", program),
		Dir("dev"), Dir("proc"), Dir("sys"), Dir("tmp").Mode(0o1777), Dir("root").Mode(0o700),
		Dir("etc"),
		File("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/:/bin/sh\n"),
		File("etc/group", "root:x:0:\nuser:x:1000:\n"),
		File("etc/greeting", Greeting),
	}
	for _, name := range applets {
		layer = append(layer, Symlink("bin/"+name, "busybox"))
	}
	return layer, nil
}

// Sample lists the layers of an image that has every kind of change a layer can
// make: additions, a deleted file, a deleted directory, an opaque directory, and
// nothing at all.
func Sample(busybox string) ([]Layer, error) {
	base, err := Base(busybox)
	if err != nil {
		return nil, err
	}
	base = append(base,
		Dir("data"), File("data/keep", "kept\n"), File("data/gone", "must not be seen\n"),
		Dir("data/old"), File("data/old/a", "must not be seen\n"), Dir("data/old/b"), File("data/old/b/c", "must not be seen\n"),
		Dir("data/replaced"), File("data/replaced/before", "must not be seen\n"),
	)
	return []Layer{
		base,
		{Dir("data"), File("data/added", "added\n"), Dir("srv"), File("srv/owned", "owned\n").Owner(1000, 1000).Mode(0o640)},
		{Dir("data"), Whiteout("data/gone"), Whiteout("data/old")},
		{Dir("data"), Dir("data/replaced"), Opaque("data/replaced"), File("data/replaced/after", "after\n")},
		{},
	}, nil
}
