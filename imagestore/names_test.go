// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"errors"
	"regexp"
	"testing"

	"pgregory.net/rapid"
)

// likeReference makes what could pass for a reference, and what nearly could.
func likeReference() *rapid.Generator[string] {
	part := rapid.StringMatching(`[a-zA-Z0-9._:@/\-\[\]]{0,12}`)
	return rapid.OneOf(part, rapid.Custom(func(t *rapid.T) string {
		return rapid.StringMatching(`([a-zA-Z0-9.]{1,8}(:[0-9]{1,5})?/)?([a-z0-9]{1,5}/){0,2}[a-z0-9]{1,5}(:[a-zA-Z0-9.]{1,5})?(@sha256:[0-9a-f]{64})?`).Draw(t, "reference")
	}), rapid.String())
}

// A reference that is written out is complete: writing it out again, with whatever
// registry by default, changes nothing.
func TestReferenceIsComplete(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ref := likeReference().Draw(t, "ref")
		registry := rapid.SampledFrom([]string{"", "docker.io", "reg.example:5000", "localhost", "Reg", "no registry"}).Draw(t, "registry")
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
func TestNameOfFile(t *testing.T) {
	for path, want := range map[string]string{
		"": "", "/": "", "/a/b.tar.gz": "localhost/b", "Some Image (1).oci.tar": "localhost/some-image-1",
		"--.tar": "", "../x.TGZ": "localhost/x", "alpine_3.20.tar.zst": "localhost/alpine-3-20",
	} {
		if got := nameOfFile(path); got != want {
			t.Errorf("nameOfFile(%q) = %q, want %q", path, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		path := rapid.String().Draw(t, "path")
		if got := nameOfFile(path); got != "" && !repositoryOfFile.MatchString(got) {
			t.Errorf("nameOfFile(%q) = %q", path, got)
		}
	})
}
