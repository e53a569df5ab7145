// SPDX-License-Identifier: Apache-2.0

package storeview

import (
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Names are those of images and containers, from whoever keeps them.
type Names struct {
	Images     []NamedImage
	Containers []NamedContainer
}

// NamedImage is an image that may have its layers in the store.
type NamedImage struct {
	Namespace, Name string
	// Digest is that of the manifest or index that the name stands for.
	Digest digest.Digest
	// ChainIDs are those of its topmost layers, one for each platform that is known.
	ChainIDs []digest.Digest
}

// NamedContainer is a container that may have its snapshot in the store.
type NamedContainer struct {
	Namespace, ID string
	// Image is the name of the image it was made of, if that is known.
	Image string
	// Key is its snapshot's, in the namespace.
	Key string
}

// SplitName gives the parts of the name of a snapshot: containerd's metadata, which all
// names come through, makes them of namespace, a number of its own, and key. Others are
// keys without a namespace.
func SplitName(name string) (namespace, key string) {
	namespace, rest, ok := strings.Cut(name, "/")
	if !ok {
		return "", name
	}
	number, key, ok := strings.Cut(rest, "/")
	if !ok {
		return "", name
	}
	if _, err := strconv.ParseUint(number, 10, 64); err != nil {
		return "", name
	}
	return namespace, key
}
