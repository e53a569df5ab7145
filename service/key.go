// SPDX-License-Identifier: Apache-2.0

package service

import (
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/api/types"
)

// keyOf is what a call is about, for the log: the key of a snapshot, or the digest of a
// layer.
func keyOf(req any) string {
	switch r := req.(type) {
	case interface{ GetKey() string }:
		return r.GetKey()
	case interface{ GetDiff() *types.Descriptor }:
		return r.GetDiff().GetDigest()
	case *snapshotsapi.UpdateSnapshotRequest:
		return r.GetInfo().GetName()
	}
	return ""
}
