// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/log"
	"github.com/strata-snapshotter/strata/internal/failpoint"
	"github.com/strata-snapshotter/strata/internal/mountuse"
)

// Named answers for the metadata which directories are named. It is asked after
// a directory was listed and found not to be busy, so its answer is not older
// than the directory.
type Named interface {
	// Snapshots returns which of the numbers are active snapshots.
	Snapshots(numbers []uint64) (map[uint64]bool, error)
	// Layers returns which of the numbers are layers.
	Layers(numbers []uint64) (map[uint64]bool, error)
}

// Sweep moves directories that nothing names to the trash: what crashes and
// failures left behind.
func (s *Store) Sweep(ctx context.Context, named Named) error {
	err := errors.Join(
		failpoint.Hit(failpoint.SweepSnapshots), s.sweepDir(ctx, s.snapshots, named.Snapshots),
		failpoint.Hit(failpoint.SweepLayers), s.sweepDir(ctx, s.layers, named.Layers),
		failpoint.Hit(failpoint.SweepStaging), s.sweepStaging(),
	)
	return s.rootError(err)
}

// sweepStaging leaves nothing but what is being made at the moment: whatever
// else is there, a crash left it.
func (s *Store) sweepStaging() error {
	names, err := listDir(s.staging)
	if err != nil {
		return err
	}
	for _, base := range names {
		if n, ok := parseName(base); ok && s.isBusy(n) {
			continue
		}
		if err := s.toTrash(s.staging, base); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) sweepDir(ctx context.Context, dir *os.File, named func([]uint64) (map[uint64]bool, error)) error {
	numbers, err := s.numbersIn(dir)
	if err != nil {
		return err
	}
	idle := numbers[:0]
	for _, n := range numbers {
		if !s.isBusy(n) {
			idle = append(idle, n)
		}
	}
	keep, err := named(idle)
	if err != nil {
		return err
	}
	var used mountuse.Uses // is only looked for where there is something to remove
	for _, n := range idle {
		if keep[n] {
			continue
		}
		if used == nil {
			if used, err = mountuse.Of([]string{s.path, s.alias}); err != nil {
				return err
			}
		}
		if at := used[layersDir+"/"+name(n)]; dir == s.layers && len(at) > 0 {
			// A repair replaced it. Containers that were there before have it until they end.
			log.G(ctx).WithField("layer", n).WithField("mount", at[0]).Debug("a layer that nothing refers to stays while it is mounted")
			continue
		}
		log.G(ctx).WithField("directory", fmt.Sprintf("%s/%d", dir.Name(), n)).Info("moving a directory that nothing refers to to the trash")
		if err := s.toTrash(dir, name(n)); err != nil {
			return err
		}
	}
	return nil
}

// numbersIn lists the directories of ours. Others are left alone: somebody put
// them there.
func (s *Store) numbersIn(dir *os.File) ([]uint64, error) {
	names, err := listDir(dir)
	if err != nil {
		return nil, err
	}
	numbers := make([]uint64, 0, len(names))
	for _, base := range names {
		if n, ok := parseName(base); ok {
			numbers = append(numbers, n)
		}
	}
	return numbers, nil
}

// Recover puts right what a crash in the middle of Publish left, before anything
// else uses the store: directories are moved to where their transaction says
// they are. It returns active snapshots whose directory is missing.
func (s *Store) Recover(ctx context.Context, named Named, active []uint64) (missing []uint64, err error) {
	defer func() { err = s.rootError(err) }()
	layers, err := s.numbersIn(s.layers)
	if err != nil {
		return nil, err
	}
	isLayer, err := named.Layers(layers)
	if err != nil {
		return nil, err
	}
	for _, n := range layers {
		if isLayer[n] {
			failpoint.Pass(failpoint.RecoverDropWork)
			if err := s.DropWork(n); err != nil {
				return nil, err
			}
		}
	}
	if err := errors.Join(s.finishPublishing(ctx, named), dropTemporaries(s.externals.dir, isNumber)); err != nil {
		return nil, err
	}
	for _, n := range active {
		there, err := s.recoverSnapshot(ctx, n, isLayer)
		if err != nil {
			return nil, err
		}
		if !there {
			missing = append(missing, n)
		}
	}
	return missing, nil
}

// recoverSnapshot takes back a Publish whose transaction never came.
func (s *Store) recoverSnapshot(ctx context.Context, n uint64, isLayer map[uint64]bool) (there bool, err error) {
	if there, err = exists(s.snapshots, name(n)); err != nil {
		return false, err
	}
	if there {
		return true, s.dropTemporariesOf(n)
	}
	published, err := exists(s.layers, name(n))
	if err != nil || !published || isLayer[n] {
		return false, err
	}
	log.G(ctx).WithField("number", n).Info("taking back a commit that a crash interrupted")
	return true, s.Unpublish(n)
}

// finishPublishing moves layers that are still where they were snapshots. That
// takes a power cut and a file system, or a setting, that does not keep the
// order of writes.
func (s *Store) finishPublishing(ctx context.Context, named Named) error {
	snapshots, err := s.numbersIn(s.snapshots)
	if err != nil {
		return err
	}
	isLayer, err := named.Layers(snapshots)
	if err != nil {
		return err
	}
	for _, n := range snapshots {
		if !isLayer[n] {
			continue
		}
		published, err := exists(s.layers, name(n))
		if err != nil {
			return err
		}
		if published {
			continue // Sweep's business
		}
		log.G(ctx).WithField("number", n).Warn("finishing a commit that a crash interrupted")
		if err := rename(s.snapshots, name(n), s.layers, name(n)); err != nil {
			return err
		}
		if err := s.DropWork(n); err != nil {
			return err
		}
	}
	return nil
}
