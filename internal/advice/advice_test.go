// SPDX-License-Identifier: Apache-2.0

package advice

import (
	"os/exec"
	"testing"
)

func TestRebuildIsACommandOfTheShell(t *testing.T) {
	if got := Rebuild(DefaultRoot); got != "containerd-strata-grpc fsck --rebuild" {
		t.Error(got)
	}
	for _, root := range []string{"/a/b-c_d", "/a b", "/it's", "/a$b;c", "/ü"} {
		out, err := exec.Command("sh", "-c", "set -- "+Rebuild(root)+`; printf '%s|' "$@"`).Output()
		if want := "containerd-strata-grpc|fsck|--rebuild|--root|" + root + "|"; err != nil || string(out) != want {
			t.Errorf("%s: %q, %v", root, out, err)
		}
	}
}
