// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"context"
	"fmt"
	"time"

	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"github.com/containerd/log"
	"google.golang.org/protobuf/types/known/emptypb"
)

// versionTimeout bounds the question for containerd's version, which it is asked while
// it waits for an answer itself.
const versionTimeout = 2 * time.Second

// KnowsStaged says whether containerd's unpacker takes read-only mounts of an extraction
// to mean that there is nothing to extract. It does from version 2.4 on, and nothing but
// the version tells. No answer counts as no: the layer is then fetched and given to the
// differ, which finds it as well.
func (c *Client) KnowsStaged(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	answer, err := versionapi.NewVersionClient(c.conn).Version(ctx, &emptypb.Empty{})
	if err != nil {
		log.G(ctx).WithError(err).Debug("containerd does not tell its version")
		return false
	}
	return VersionKnowsStaged(answer.GetVersion())
}

// VersionKnowsStaged is KnowsStaged for a version of containerd, as containerd and its distributors write it: v2.4.2,
// 2.4.0-rc.1, v2.5.0-12-gabcdef.m, 2.4.2~ds1.
func VersionKnowsStaged(version string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(version, "v%d.%d", &major, &minor); err != nil {
		if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
			return false
		}
	}
	return major > 2 || major == 2 && minor >= 4
}
