// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

// ErrReference is in every error about a reference that can't be parsed. Its class is
// ErrInvalidArgument.
var ErrReference = fmt.Errorf("not an image reference: %w", errdefs.ErrInvalidArgument)

// dockerHub is the registry that short names are on by convention; its images without
// an owner are in "library".
const dockerHub = "docker.io"

// Reference writes ref out: REGISTRY/REPOSITORY:TAG or REGISTRY/REPOSITORY@DIGEST.
// Without a registry it is on the one of Options.Registry; without tag and digest the
// tag is "latest"; with both the tag is dropped, since the digest says it all.
// The error is ErrReference.
func (s *Store) Reference(ref string) (string, error) {
	return WriteOut(ref, s.options.Registry)
}

// WriteOut is Store.Reference for a registry of choice; empty means docker.io.
func WriteOut(ref, registry string) (string, error) {
	full := ref
	if registry != "" && registry != dockerHub && !namesRegistry(ref) {
		full = registry + "/" + ref
	}
	named, err := reference.ParseDockerRef(full)
	if err != nil {
		return "", fmt.Errorf("reference %q: %w: %w", full, err, ErrReference)
	}
	return named.String(), nil
}

// namesRegistry says whether the part of ref before the first slash is a host, by the
// rule of Docker: it has a dot, a port or capital letters, or is localhost.
func namesRegistry(ref string) bool {
	host, _, ok := strings.Cut(ref, "/")
	return ok && (host == "localhost" || strings.ContainsAny(host, ".:") || strings.ToLower(host) != host)
}

// digestOf is the digest that a complete reference has, if it has one.
func digestOf(name string) string {
	_, digest, _ := strings.Cut(name, "@")
	return digest
}
