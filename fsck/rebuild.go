// SPDX-License-Identifier: Apache-2.0

package fsck

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/internal/failpoint"
	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/metadata"
)

// Rebuilt is what a new metadata.db has, and what became of the old one.
type Rebuilt struct {
	// Why is what is wrong with the old one.
	Why       string `json:"why"`
	Active    int    `json:"active"`
	Views     int    `json:"views"`
	Committed int    `json:"committed"`
	Layers    int    `json:"layers"`
	// Lost says what was missing in the log. Empty: everything is back.
	Lost []string `json:"lost,omitempty"`
	// Aside is where the old metadata.db is, if there was one.
	Aside string `json:"aside,omitempty"`
	// Kept are directories of what was lost, where they are now.
	Kept []string `json:"kept,omitempty"`
}

// Rebuild makes a new metadata.db of metadata.log, if the old one is missing or can't be
// read, and checks the root with it. It shows approve what there will be, and changes
// nothing without its consent. The old file is kept under another name. Where the log is
// not complete, directories that nothing names are kept aside, too.
//
// Errors are those of Check, and ErrFailedPrecondition: metadata.db can be read.
// ErrDataLoss: there is nothing to make it of. A Rebuild that failed, or was killed, can
// be done again.
func Rebuild(ctx context.Context, opts Options, approve func(*Rebuilt) bool) (r *Report, err error) {
	dir, err := layerstore.Inspect(opts.Root)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	b := &rebuilder{dir: dir, done: &Rebuilt{}}
	if err := b.plan(); err != nil {
		return nil, err
	}
	if approve(b.done) {
		if err := b.do(); err != nil {
			return nil, fmt.Errorf("rebuild: %w", err)
		}
	}
	if r, err = check(ctx, opts, dir); err == nil {
		r.Rebuilt = b.done
	}
	return r, err
}

type rebuilder struct {
	dir    *layerstore.Inspector
	survey *layerstore.Survey
	saved  *metadata.Saved
	done   *Rebuilt
}

func (b *rebuilder) plan() (err error) {
	if b.done.Why, err = whyRebuild(b.dir.DatabasePath()); err != nil {
		return err
	}
	if b.survey, err = b.dir.Survey(); err != nil {
		return err
	}
	b.saved, err = metadata.ReadSaved(b.dir.DatabasePath())
	if errdefs.IsNotFound(err) {
		err = fmt.Errorf("%w; what %d layers and %d snapshots are called is lost with metadata.db: restore that from a copy, or start with an empty root (%w)",
			err, len(b.survey.Layers), len(b.survey.Snapshots), errdefs.ErrDataLoss)
	}
	if err != nil {
		return err
	}
	b.raiseReserved()
	b.done.Layers, b.done.Lost = len(b.saved.Layers), b.saved.Lost
	for _, sn := range b.saved.Snapshots {
		switch sn.Kind {
		case snapshots.KindActive:
			b.done.Active++
		case snapshots.KindView:
			b.done.Views++
		default:
			b.done.Committed++
		}
	}
	return nil
}

// whyRebuild says what is wrong with a metadata.db that a repair can't put right.
func whyRebuild(path string) (string, error) {
	c, err := metadata.Inspect(path)
	switch {
	case errdefs.IsNotFound(err), errdefs.IsDataLoss(err):
		return err.Error(), nil
	case err != nil:
		return "", err
	case c.Incomplete:
		return "there are records of snapshots in it that can't be read", nil
	}
	for _, p := range c.Problems {
		if rules[Code(p.Code)].advice == adviseRebuild {
			return p.Text, nil
		}
	}
	return "", fmt.Errorf("%s can be read, there is nothing to rebuild; what else is wrong, --repair may put right: %w", path, errdefs.ErrFailedPrecondition)
}

// raiseReserved makes sure that no number is handed out again: the last that were may be
// missing in the log.
func (b *rebuilder) raiseReserved() {
	highest := uint64(0)
	for _, numbers := range [][]uint64{sortedKeys(b.survey.Layers), sortedKeys(b.survey.Snapshots), sortedKeys(b.saved.Layers), sortedKeys(b.saved.Snapshots)} {
		if len(numbers) > 0 {
			highest = max(highest, slices.Max(numbers))
		}
	}
	if len(b.saved.Lost) > 0 {
		highest += lostMargin
	}
	b.saved.Reserved = max(b.saved.Reserved, highest+1)
}

// do comes to the old metadata.db last: until then, and after a crash, it can be done
// again.
func (b *rebuilder) do() error {
	path, err := b.dir.NewDatabasePath()
	if err != nil {
		return err
	}
	if err := failpoint.Hit(failpoint.RebuildWrite); err != nil {
		return err
	}
	if err := b.saved.Write(path); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	if len(b.saved.Lost) > 0 {
		if err := b.keep(); err != nil {
			return err
		}
	}
	if b.done.Aside, err = b.dir.ReplaceDatabase(time.Now()); err != nil {
		return err
	}
	return metadata.RenewLog(b.dir.DatabasePath())
}

// keep moves what nothing names out of the way of those who would remove it: it may have
// belonged to what is lost.
func (b *rebuilder) keep() error {
	for _, n := range sortedKeys(b.survey.Snapshots) {
		_, layer := b.saved.Layers[n]
		if sn, ok := b.saved.Snapshots[n]; ok && sn.Kind == snapshots.KindActive || layer {
			continue
		}
		if err := b.kept(b.dir.KeepSnapshot(n)); err != nil {
			return err
		}
	}
	for _, n := range sortedKeys(b.survey.Layers) {
		_, layer := b.saved.Layers[n]
		if sn, ok := b.saved.Snapshots[n]; ok && sn.Kind == snapshots.KindActive || layer {
			continue
		}
		if err := b.kept(b.dir.KeepLayer(n)); err != nil {
			return err
		}
	}
	return nil
}

func (b *rebuilder) kept(path string, err error) error {
	if err == nil {
		b.done.Kept = append(b.done.Kept, path)
	}
	return err
}
