// SPDX-License-Identifier: Apache-2.0

package extstore

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/strata-snapshotter/strata/overlayutil"
	"golang.org/x/sys/unix"
)

// Verify says what is compared with the recorded digests before a layer is used
// for the first time in the life of a Set.
type Verify string

const (
	// VerifyFull reads everything.
	VerifyFull Verify = "full"
	// VerifyMetadata reads names, owners, modes, sizes, times and attributes.
	VerifyMetadata Verify = "metadata"
	// VerifyNone trusts the store.
	VerifyNone Verify = "none"
)

// ParseVerify reads a setting; "" is "full". ErrInvalidArgument: it is none of
// the three.
func ParseVerify(s string) (Verify, error) {
	switch v := Verify(s); v {
	case "":
		return VerifyFull, nil
	case VerifyFull, VerifyMetadata, VerifyNone:
		return v, nil
	}
	return "", fmt.Errorf("verify = %q is none of \"full\", \"metadata\" and \"none\": %w", s, errdefs.ErrInvalidArgument)
}

// identity is what tells a layer from one that took its place.
type identity struct {
	fs, manifest inode
	fsTime       unix.Timespec // of the last change
	manifestTime unix.Timespec
}

func identify(fs *os.File, manifest *unix.Stat_t) (id identity, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(fs.Fd()), &st); err != nil {
		return id, err
	}
	return identity{
		fs: inode{st.Dev, st.Ino}, fsTime: st.Ctim,
		manifest: inode{manifest.Dev, manifest.Ino}, manifestTime: manifest.Ctim,
	}, nil
}

// verdict is what is known of a layer of a store. Whoever has the token of turn
// may look and change it.
type verdict struct {
	turn  chan struct{}
	known bool
	of    identity
	err   error
}

type verdictKey struct {
	store  string
	diffID digest.Digest
}

func (s *Set) verdict(store string, diffID digest.Digest) *verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := verdictKey{store, diffID}
	v := s.verdicts[key]
	if v == nil {
		v = &verdict{turn: make(chan struct{}, 1)}
		s.verdicts[key] = v
	}
	return v
}

// verified checks a layer once: two look-ups at the same time read it once, and
// a layer that was replaced is checked again. Errors of reading, which may pass,
// are not remembered.
func (s *Set) verified(ctx context.Context, c *candidate) error {
	if s.verify == VerifyNone {
		return nil
	}
	id, err := identify(c.fs, &c.manifestStat)
	if err != nil {
		return err
	}
	v := s.verdict(c.store, c.manifest.DiffID)
	select {
	case v.turn <- struct{}{}:
		defer func() { <-v.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if v.known && v.of == id {
		return v.err
	}
	err = s.compare(ctx, c)
	var bad *damage
	if err == nil || errors.As(err, &bad) {
		v.known, v.of, v.err = true, id, err
	}
	return err
}

// compare lists the layer and holds it against what is recorded.
func (s *Set) compare(ctx context.Context, c *candidate) (err error) {
	want, depth := c.manifest.Tree.Full, withContents
	if s.verify == VerifyMetadata {
		want, depth = c.manifest.Tree.Metadata, metadataOnly
	}
	if want.Validate() != nil || want.Algorithm() != digest.SHA256 {
		return &damage{fmt.Errorf("%s records no digest to verify it by", layerFile)}
	}
	difference, digests, err := inspect(ctx, c.fs, c.dir, namespaces[c.manifest.Xattrs], depth)
	if err != nil {
		return err
	}
	got := digests.Full
	if s.verify == VerifyMetadata {
		got = digests.Metadata
	}
	if got == want {
		return nil
	}
	if difference == "" {
		difference = "its digest is " + got.String() + " and was " + want.String()
	}
	return &damage{fmt.Errorf("its content is not what was recorded (verify = %q): %s", s.verify, difference)}
}

// inspect makes the digests of a tree and tells where it differs from the index
// in the directory layer, if there is one.
func inspect(ctx context.Context, fs, layer *os.File, ns overlayutil.XattrNamespace, d depth) (difference string, digests treeDigests, err error) {
	c := &comparer{ended: true}
	index, err := openIn(layer, indexFile, unix.O_RDONLY|unix.O_NONBLOCK, inStore)
	if err == nil {
		defer func() { err = errors.Join(err, index.Close()) }()
		c = newComparer(index, d)
	}
	h := newHasher()
	err = list(ctx, fs, ns, d, func(r record) error {
		h.add(r)
		c.add(r)
		return nil
	})
	if err != nil {
		return "", digests, err
	}
	c.finish()
	return c.found, h.digests(), nil
}
