// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"errors"
	"regexp"
	"testing"
)

// A reference that is written out is complete: writing it out again, with whatever
// registry by default, changes nothing.
func FuzzReference(f *testing.F) {
	for _, ref := range []string{
		"alpine", "me/tool:1", "localhost:5000/a", "localhost/a:b", "reg.example/a@sha256:12", "UPPER/a", ":", "@", "a//b", "[::1]:5000/a",
	} {
		f.Add(ref, "")
		f.Add(ref, "reg.example:5000")
	}
	f.Fuzz(func(t *testing.T, ref, registry string) {
		full, err := WriteOut(ref, registry)
		if err != nil {
			if !errors.Is(err, ErrReference) {
				t.Errorf("WriteOut(%q, %q): %v is no ErrReference", ref, registry, err)
			}
			return
		}
		for _, other := range []string{"", registry, "other.example"} {
			if again, err := WriteOut(full, other); err != nil || again != full {
				t.Errorf("WriteOut(%q, %q) = %q, which with %q becomes %q, %v", ref, registry, full, other, again, err)
			}
		}
	})
}

var repositoryOfFile = regexp.MustCompile(`^localhost/[a-z0-9]+(-[a-z0-9]+)*$`)

// What is made of a file's name is a repository's name, or nothing.
func FuzzNameOfFile(f *testing.F) {
	for _, path := range []string{"", "/", "a.tar.gz", "Some Image (1).oci.tar", "--.tar", ".tar", "ä.tar", "../x.TGZ", "a\x00b"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if got := nameOfFile(path); got != "" && !repositoryOfFile.MatchString(got) {
			t.Errorf("nameOfFile(%q) = %q", path, got)
		}
	})
}
