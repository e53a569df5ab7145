// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestOpenTwice(t *testing.T) {
	root := newRoot(t)
	first := open(t, Options{Root: root})
	var said string
	o := Options{Root: root, Wait: 10 * time.Millisecond, Waiting: func(m string) { said = m }}
	_, err := Open(context.Background(), o)
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "process ") {
		t.Errorf("second Open: %v, want ErrUnavailable that names the process", err)
	}
	if !strings.Contains(said, "process ") {
		t.Errorf("said %q while it waited", said)
	}
	must(t, first.Close())
	open(t, Options{Root: root})
}

func TestOpenWaits(t *testing.T) {
	root := newRoot(t)
	first := open(t, Options{Root: root})
	waiting := make(chan struct{})
	go func() {
		<-waiting
		_ = first.Close()
	}()
	open(t, Options{Root: root, Wait: time.Minute, Waiting: func(string) { close(waiting) }})
}

func TestOpenRefuses(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, root string){
		"another format": func(t *testing.T, root string) {
			must(t, os.WriteFile(filepath.Join(root, versionName), []byte("strata image store 2\n"), 0o600))
		},
		"another directory": func(t *testing.T, root string) {
			must(t, os.WriteFile(filepath.Join(root, "thesis.txt"), nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			prepare(t, root)
			if _, err := Open(context.Background(), Options{Root: root}); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("Open: %v, want ErrFailedPrecondition", err)
			}
			if _, err := os.Stat(filepath.Join(root, storeName)); err == nil {
				t.Error("the root was written to")
			}
		})
	}
}

func TestGroup(t *testing.T) {
	root := newRoot(t)
	if _, err := Open(context.Background(), Options{Root: root, Group: "no-such-group"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("unknown group: %v, want ErrInvalidArgument", err)
	}
	check := func(name string, mode, gid uint32) {
		t.Helper()
		var st unix.Stat_t
		must(t, unix.Stat(filepath.Join(root, name), &st))
		if st.Mode&0o7777 != mode || st.Gid != gid {
			t.Errorf("%q has mode %o and group %d, want %o and %d", name, st.Mode&0o7777, st.Gid, mode, gid)
		}
	}
	must(t, open(t, Options{Root: root}).Close())
	check("", 0o755, 0)
	check(contentName, 0o700, 0)
	must(t, open(t, Options{Root: root, Group: "4711"}).Close())
	check("", 0o1775, 4711)
	check(contentName, 0o750, 4711)
	check(storeName, 0o700, 0)
}

func TestReference(t *testing.T) {
	const sum = "@sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
	for _, c := range []struct{ ref, registry, want string }{
		{"alpine", "", "docker.io/library/alpine:latest"},
		{"alpine:3.20", "docker.io", "docker.io/library/alpine:3.20"},
		{"me/tool", "", "docker.io/me/tool:latest"},
		{"alpine", "localhost:5000", "localhost:5000/alpine:latest"},
		{"me/tool:1", "reg.example", "reg.example/me/tool:1"},
		{"reg.example/tool", "localhost:5000", "reg.example/tool:latest"},
		{"localhost/tool", "reg.example", "localhost/tool:latest"},
		{"tool" + sum, "reg.example", "reg.example/tool" + sum},
		{"tool:1" + sum, "reg.example", "reg.example/tool" + sum},
	} {
		if got, err := WriteOut(c.ref, c.registry); err != nil || got != c.want {
			t.Errorf("WriteOut(%q, %q) = %q, %v, want %q", c.ref, c.registry, got, err, c.want)
		}
	}
	for _, ref := range []string{"", "UPPER", "a b", "x:", "x@sha256:12", "-", "a/../b", strings.Repeat("a", 300)} {
		if got, err := WriteOut(ref, "reg.example"); !errdefs.IsInvalidArgument(err) {
			t.Errorf("WriteOut(%q) = %q, %v, want ErrReference", ref, got, err)
		}
	}
}
