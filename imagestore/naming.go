// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// naming makes names for the images of a bundle, see LoadOptions.Name.
type naming struct {
	registry, name, path string
	only                 bool // the bundle has one image
}

// annotated is what a bundle calls an image: containerd's annotation has a complete name,
// that of OCI a tag or a complete name.
func annotated(desc ocispec.Descriptor) string {
	if name := desc.Annotations[images.AnnotationImageName]; name != "" {
		return name
	}
	return desc.Annotations[ocispec.AnnotationRefName]
}

func (n naming) of(desc ocispec.Descriptor) (string, error) {
	own := annotated(desc)
	complete := strings.ContainsAny(own, "/:@")
	if complete && (n.name == "" || !n.only) {
		return WriteOut(own, n.registry)
	}
	base := n.name
	if base == "" {
		base = nameOfFile(n.path)
	}
	if base == "" {
		return "", fmt.Errorf("image %s has no name of its own, give one: %w", desc.Digest, ErrReference)
	}
	full, err := WriteOut(base, n.registry)
	if err != nil {
		return "", err
	}
	if n.only && hasTag(base) {
		return full, nil
	}
	repository, err := reference.ParseNormalizedNamed(full)
	if err != nil {
		return "", fmt.Errorf("name %q: %w: %w", base, err, ErrReference)
	}
	switch {
	case own != "" && !complete:
		return WriteOut(repository.Name()+":"+own, "")
	case n.only:
		return full, nil
	}
	return WriteOut(repository.Name()+"@"+desc.Digest.String(), "")
}

// hasTag says whether a name says which one of a repository is meant.
func hasTag(name string) bool {
	last := name[strings.LastIndex(name, "/")+1:]
	return strings.ContainsAny(last, ":@")
}

var (
	archiveSuffix = regexp.MustCompile(`\.(tar|tgz|tzst|gz|zst|zstd|oci|docker)$`)
	noName        = regexp.MustCompile(`[^a-z0-9]+`)
)

// nameOfFile makes a repository's name of a path, or none.
func nameOfFile(path string) string {
	if path == "" {
		return ""
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	base := strings.ToLower(filepath.Base(path))
	for archiveSuffix.MatchString(base) {
		base = archiveSuffix.ReplaceAllString(base, "")
	}
	base = strings.Trim(noName.ReplaceAllString(base, "-"), "-")
	if base == "" {
		return ""
	}
	return "localhost/" + base
}
