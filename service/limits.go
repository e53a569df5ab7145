// SPDX-License-Identifier: Apache-2.0

package service

import (
	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/config"
)

// layerLimits are limits as archive has them. Valid ones are never its zero value,
// which would mean the defaults: some have to be set.
func layerLimits(l config.Limits) archive.Limits {
	return archive.Limits{
		Bytes:     l.Bytes,
		Entries:   l.Entries,
		PathBytes: int(l.PathBytes),
		Depth:     int(l.Depth),
		NameBytes: int(l.NameBytes),
		Xattrs:    l.XattrBytes,
		Ratio:     l.Ratio,
	}
}
