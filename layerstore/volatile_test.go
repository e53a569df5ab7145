// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/internal/testutil"
)

// A root is marked while it is open without durability, and refused in the next boot
// if nobody closed it.
func TestVolatileMark(t *testing.T) {
	testutil.RequireRoot(t)
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		mark    string // found at Open, "" for none
		refused bool
	}{
		"none":                  {},
		"of a crash":            {mark: boot + "\n"},
		"of another boot":       {mark: "6b8a3f0e-0000-4000-8000-000000000000\n", refused: true},
		"cut while it was made": {mark: "\n", refused: true},
	} {
		for _, volatile := range []bool{false, true} {
			t.Run(name, func(t *testing.T) { testMark(t, test.mark, test.refused, volatile) })
		}
	}
}

func testMark(t *testing.T, mark string, refused, volatile bool) {
	root := t.TempDir()
	file := filepath.Join(root, volatileFile)
	if mark != "" {
		write(t, file, mark)
	}
	s, err := Open(Config{Root: root, Volatile: volatile})
	if refused {
		if !errdefs.IsFailedPrecondition(err) {
			t.Errorf("got %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); (err == nil) != volatile {
		t.Errorf("while it is open, volatile %v: %v", volatile, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("after it was closed: %v", err)
	}
}
