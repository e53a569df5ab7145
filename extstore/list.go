// SPDX-License-Identifier: Apache-2.0

package extstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Listed is a layer in a store, or what is left of one.
type Listed struct {
	DiffID digest.Digest
	// Layer is what layer.json says; Dir is not open. Zero if Err is set.
	Layer Layer
	// Err says why it can't be used, with the class ErrDataLoss. The content has not
	// been looked at.
	Err error
}

// List returns the layers of the store at path, sorted by diffID. What is not named like
// a layer is passed over.
//
// ErrNotFound: there is nothing. ErrFailedPrecondition: it is no store, one of a newer
// version, or can't be read.
func List(path string) (list []Listed, err error) {
	store, err := openForList(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	algorithms, err := namesIn(store, layersDir)
	if err != nil {
		return nil, fmt.Errorf("list store %s: %w", path, classify(err))
	}
	for _, algorithm := range algorithms {
		names, err := namesIn(store, layersDir+"/"+algorithm)
		if errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list store %s: %w", path, classify(err))
		}
		for _, name := range names {
			if diffID := digest.Digest(algorithm + ":" + name); diffID.Validate() == nil {
				list = append(list, listed(store, diffID))
			}
		}
	}
	slices.SortFunc(list, func(a, b Listed) int { return strings.Compare(a.DiffID.String(), b.DiffID.String()) })
	return list, nil
}

func listed(store *os.File, diffID digest.Digest) Listed {
	m, err := readLayerFile(store, diffID)
	if err != nil {
		return Listed{DiffID: diffID, Err: fmt.Errorf("%w (%w)", err, errdefs.ErrDataLoss)}
	}
	return Listed{DiffID: diffID, Layer: m.layer()}
}

func readLayerFile(store *os.File, diffID digest.Digest) (_ *manifest, err error) {
	dir, err := openIn(store, layerPath(diffID), dirFlags, inStore)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	c := &candidate{dir: dir}
	return &c.manifest, c.read(diffID)
}

// Check compares a layer of the store at path with what was recorded when it was
// exported; VerifyNone only looks whether it is complete.
//
// ErrNotFound: the store does not have it. ErrDataLoss: it is not what was recorded, or
// incomplete. ErrFailedPrecondition: this process can't see all of it. Others as List.
func Check(ctx context.Context, path string, diffID digest.Digest, verify Verify) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("layer %s of store %s: %w", diffID, path, classifyCheck(err))
		}
	}()
	if err := validate("diffID", diffID); err != nil {
		return err
	}
	store, err := openForList(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	m, err := readLayerFile(store, diffID)
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("it is not there: %w", errdefs.ErrNotFound)
	}
	if err != nil {
		return err
	}
	ns := namespaces[m.Xattrs]
	if err := seesMarks(ns); err != nil {
		return err
	}
	set := &Set{verify: verify, ns: ns, verdicts: map[verdictKey]*verdict{}}
	c, err := set.find(ctx, store, path, diffID)
	if err == nil && c == nil {
		return fmt.Errorf("it was removed: %w", errdefs.ErrNotFound)
	}
	if c != nil && c.fs != nil && err == nil {
		return c.fs.Close()
	}
	return err
}

// classifyCheck: a problem is why a layer would be skipped.
func classifyCheck(err error) error {
	var p *problem
	var bad *damage
	if errors.As(err, &p) || errors.As(err, &bad) {
		return fmt.Errorf("%w (%w)", err, errdefs.ErrDataLoss)
	}
	return classify(err)
}

func openForList(path string) (*os.File, error) {
	store, err := openStore(path)
	var p *problem
	if !errors.As(err, &p) {
		return store, err
	}
	class := error(errdefs.ErrFailedPrecondition)
	if p.reason == ReasonAbsent {
		class = errdefs.ErrNotFound
	}
	return nil, fmt.Errorf("store %s: %w (%w)", path, err, class)
}

// namesIn lists a directory of a store; one that is not there has nothing in it.
func namesIn(store *os.File, rel string) (names []string, err error) {
	dir, err := openIn(store, rel, dirFlags, inStore)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return dir.Readdirnames(-1)
}
