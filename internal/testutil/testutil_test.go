// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestInUserNS(t *testing.T) {
	for _, tc := range []struct {
		name string
		host int
		want string
	}{
		{"subrange", 100000, "100000"},
		{"identity", 0, "0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if !InUserNS(t, tc.host) {
				return
			}
			data, err := os.ReadFile("/proc/self/uid_map")
			if err != nil {
				t.Fatal(err)
			}
			if f := strings.Fields(string(data)); len(f) != 3 || f[0] != "0" || f[1] != tc.want || f[2] != "65536" {
				t.Fatalf("uid_map is %q", data)
			}
			Tmpfs(t) // mounting must be allowed
		})
	}
}

func TestLoopFS(t *testing.T) {
	RequireRoot(t)
	dir := LoopFS(t, "ext4", 16, "-q")
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if st.Type != unix.EXT4_SUPER_MAGIC {
		t.Fatalf("not ext4: %#x", st.Type)
	}
	if got := MountsUnder(t, filepath.Dir(dir)); len(got) != 1 || got[0] != dir {
		t.Fatalf("mounts under it: %v", got)
	}
}

func TestTryLoopFSReportsMkfs(t *testing.T) {
	RequireRoot(t)
	if _, err := TryLoopFS(t, "ext4", 16, "-O", "no_such_feature"); err == nil {
		t.Fatal("mkfs with a wrong feature succeeded")
	}
}
