// SPDX-License-Identifier: Apache-2.0

package service

import (
	"os"

	"github.com/containerd/containerd/v2/defaults"

	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/fsck"
)

// defaultContent is where containerd keeps its content, unless it is told otherwise.
const defaultContent = defaults.DefaultRootDir + "/io.containerd.content.v1.content"

// CheckOptions are what a root is checked and repaired with, by a configuration that is
// valid. Content is where containerd's content store is: empty for that of the
// configuration, or else containerd's default, if it is there.
func CheckOptions(cfg config.Config, content string) fsck.Options {
	if content == "" {
		content = cfg.ContentRoot
	}
	if content == "" {
		if _, err := os.Stat(defaultContent); err == nil {
			content = defaultContent
		}
	}
	return fsck.Options{Root: cfg.Root, Content: content, Limits: layerLimits(cfg.Limits)}
}
