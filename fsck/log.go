// SPDX-License-Identifier: Apache-2.0

package fsck

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/metadata"
)

// log holds metadata.log against metadata.db, if both are of the same transaction: where
// they are not, the daemon makes the log anew when it starts.
func (c *checker) log() error {
	path := c.dir.DatabasePath()
	subject := Subject{Path: metadata.LogPath(path)}
	var plan []Action
	if !c.db.Incomplete && len(c.db.LayersUnreadable) == 0 {
		plan = []Action{onDisk("make metadata.log of metadata.db", func(context.Context, *layerstore.Inspector) error { return metadata.RenewLog(path) })}
	}
	differences, err := c.db.CompareLog(path)
	switch {
	case errdefs.IsNotFound(err):
		c.add(CodeLogMissing, subject, "there is no log to make metadata.db of if that were lost", plan...)
	case errdefs.IsDataLoss(err):
		c.add(CodeLogDamaged, subject, err.Error(), plan...)
	case err != nil:
		return err
	}
	if len(differences) > 0 {
		text := fmt.Sprintf("metadata.log and metadata.db contradict each other: %s", differences[0])
		if more := len(differences) - 1; more > 0 {
			text += fmt.Sprintf(", and %d more", more)
		}
		c.add(CodeLogDiffers, subject, text, plan...)
	}
	return nil
}
