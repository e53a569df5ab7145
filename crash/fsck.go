// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"slices"

	"github.com/strata-snapshotter/strata/fsck"
)

// fsck looks at the root between two lives of the daemon.
func (r *run) fsck(ctx context.Context) error {
	if err := r.daemon.stop(); err != nil {
		return err
	}
	if err := r.checkRoot(ctx); err != nil {
		return err
	}
	d, err := startDaemon(ctx, r.setting)
	if err != nil {
		return err
	}
	r.daemon = d
	return nil
}

// lostExtraction are the codes of an active snapshot that a layer was being extracted
// into: its directory is taken out of it meanwhile. Nobody goes on with an extraction
// after a crash, and the snapshot can be removed.
var lostExtraction = []fsck.Code{fsck.CodeSnapshotMissing, fsck.CodeSnapshotFSMissing, fsck.CodeSnapshotWorkMissing, fsck.CodeSealUnreadable}

// checkRoot does not measure: after a crash a file system may count its blocks differently.
func (r *run) checkRoot(ctx context.Context) error {
	checked, err := fsck.Check(ctx, fsck.Options{Root: r.setting.root})
	if err != nil {
		return err
	}
	for _, f := range checked.Findings {
		s := r.registry.byName[f.Subject.Snapshot]
		extraction := s != nil && s.chain != nil && slices.Contains(lostExtraction, f.Code)
		if f.Code != fsck.CodeTrashLeft && !extraction {
			r.report.found(unsound, "%s: %s: %+v: %s", f.Severity, f.Code, f.Subject, f.Message)
		}
	}
	return nil
}
