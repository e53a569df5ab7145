// SPDX-License-Identifier: Apache-2.0

package faultfs_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/strata-snapshotter/strata/internal/faultfs"
)

func TestRules(t *testing.T) {
	f := faultfs.New(t, t.TempDir())
	made := func(name string) error { return os.Mkdir(filepath.Join(f.Dir(), name), 0o700) }
	f.Set(faultfs.Rule{Ops: []string{faultfs.Mkdir}, First: 2, Last: 2, Errno: syscall.EIO})
	for i, want := range []error{nil, syscall.EIO, nil} {
		if err := made(string(rune('a' + i))); !errors.Is(err, want) {
			t.Errorf("number %d: %v, want %v", i+1, err, want)
		}
	}
	if n := f.Count(); n != 3 {
		t.Errorf("counted %d", n)
	}
	f.Set(faultfs.Rule{Ops: []string{faultfs.Mkdir}, First: 1})
	done := make(chan error)
	go func() { done <- made("held") }()
	f.WaitHeld()
	select {
	case err := <-done:
		t.Errorf("it did not hang: %v", err)
	default:
	}
	f.Set(faultfs.Rule{})
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Reads and writes of files that are open come by the rules.
func TestReadsAndWrites(t *testing.T) {
	f := faultfs.New(t, t.TempDir())
	path := filepath.Join(f.Dir(), "f")
	if err := os.WriteFile(path, []byte("f"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, op := range []string{faultfs.Read, faultfs.Write, faultfs.Fsync} {
		f.Set(faultfs.Rule{})
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.Set(faultfs.Rule{Ops: []string{op}, First: 1, Errno: syscall.EIO})
		switch op {
		case faultfs.Read:
			_, err = file.Read(make([]byte, 1))
		case faultfs.Write:
			_, err = file.Write([]byte("g"))
		default:
			err = file.Sync()
		}
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v", op, err)
		}
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	}
}
