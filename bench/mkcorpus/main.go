// SPDX-License-Identifier: Apache-2.0

// Command mkcorpus makes a small corpus of layers for the benchmark, out of the files
// of the Go toolchain that compiles it: nothing is downloaded. The shapes are those of
// real images; the sizes are small enough for a run of minutes.
//
//	go run ./bench/mkcorpus -o .cache/bench-corpus
//
// A corpus that is there already, from this version, is left as it is.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// version is that of what is made. A directory of another one is made anew.
const version = "1\n"

func main() {
	output := flag.String("o", ".cache/bench-corpus", "`directory` to make")
	flag.Parse()
	if err := run(*output); err != nil {
		fmt.Fprintln(os.Stderr, "mkcorpus:", err)
		os.Exit(1)
	}
}

// run makes the corpus beside its place and moves it there when it is complete.
func run(output string) (err error) {
	if text, err := os.ReadFile(filepath.Join(output, "VERSION")); err == nil && string(text) == version {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(output), 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(output), "bench-corpus-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := fill(dir); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "VERSION"), []byte(version), 0o644); err != nil {
		return err
	}
	if err := os.RemoveAll(output); err != nil {
		return err
	}
	return os.Rename(dir, output)
}

func fill(dir string) error {
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("where is the Go toolchain: %w", err)
	}
	files, err := find(strings.TrimSpace(string(goroot)))
	if err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, "f"), 0o755); err != nil {
		return err
	}
	for _, l := range layers(files) {
		if err := write(filepath.Join(dir, filepath.FromSlash(l.name)+".tar"), l.make); err != nil {
			return fmt.Errorf("layer %s: %w", l.name, err)
		}
	}
	return nil
}
