// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// files are those of the Go toolchain, in the order of their names.
type files struct {
	sources  [][]byte
	binaries [][]byte
}

// The most that is kept, so that a bigger toolchain makes no bigger corpus.
const (
	mostSources  = 6000
	mostBinaries = 90 << 20
)

func find(goroot string) (files, error) {
	var f files
	err := each(filepath.Join(goroot, "src"), func(path string) error {
		if filepath.Ext(path) != ".go" || len(f.sources) == mostSources {
			return nil
		}
		data, err := os.ReadFile(path)
		f.sources = append(f.sources, data)
		return err
	})
	if err != nil {
		return f, err
	}
	total := 0
	for _, dir := range []string{"bin", "pkg"} {
		err := each(filepath.Join(goroot, dir), func(path string) error {
			info, err := os.Stat(path)
			if err != nil || info.Mode()&0o100 == 0 || total > mostBinaries {
				return err
			}
			data, err := os.ReadFile(path)
			f.binaries, total = append(f.binaries, data), total+len(data)
			return err
		})
		if err != nil {
			return f, err
		}
	}
	if len(f.sources) < 500 || len(f.binaries) < 2 {
		return f, fmt.Errorf("%s has %d sources and %d programs: is it a whole Go toolchain?", goroot, len(f.sources), len(f.binaries))
	}
	return f, nil
}

func each(dir string, do func(path string) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		return do(path)
	})
}
