// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	// Digests are validated only for algorithms that are linked in.
	_ "crypto/sha256"
	_ "crypto/sha512"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// BindBlob remembers that the blob unpacks to the layer with diffID. It must
// only be called by who unpacked and hashed it: labels are claims.
//
// ErrInvalidArgument: one of them is no digest.
func (tx *Tx) BindBlob(blob, diffID digest.Digest) error {
	k, err := digestKey(blob)
	if err != nil {
		return err
	}
	v, err := digestKey(diffID)
	if err != nil {
		return err
	}
	return tx.put(bucketBlobs, k, v)
}

// DiffIDOf returns what BindBlob remembered of a blob. ErrNotFound if it never
// heard of it, ErrInvalidArgument if blob is no digest.
func (tx *Tx) DiffIDOf(blob digest.Digest) (digest.Digest, error) {
	k, err := digestKey(blob)
	if err != nil {
		return "", err
	}
	v := tx.bucket(bucketBlobs).Get(k)
	if v == nil {
		return "", fmt.Errorf("diffID of blob %s: %w", blob, errdefs.ErrNotFound)
	}
	d := &decoder{b: v}
	diffID := digest.Digest(d.string())
	return diffID, d.finish()
}

// ForgetBlob deletes what BindBlob remembered of a blob, if anything.
func (tx *Tx) ForgetBlob(blob digest.Digest) error {
	k, err := digestKey(blob)
	if err != nil {
		return err
	}
	return tx.delete(bucketBlobs, k)
}

// digestKey packs a digest: 33 bytes for sha256, the text for others.
func digestKey(d digest.Digest) ([]byte, error) {
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w (%w)", d, err, errdefs.ErrInvalidArgument)
	}
	return appendString(nil, d.String()), nil
}
