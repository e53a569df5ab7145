// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/config"
)

// Options are what a store is opened with. Only Root is needed.
type Options struct {
	// Root is the absolute path of the store's directory. It is created.
	Root string
	// Snapshotter and Limits are those of the daemon's configuration; nil means what
	// config.Default has.
	Snapshotter *config.Snapshotter
	Limits      *config.Limits
	// Group is the name or the number of a group that Root is given to, with mode
	// 1775; empty leaves both alone. Layers stay readable for the owner only.
	Group string
	// Registry is the registry of references that name none. Empty means docker.io.
	Registry string
	// Wait is how long to wait while another process has the root open. 0 does not wait.
	Wait time.Duration
	// Waiting is called once when that begins, with a message that names the process.
	Waiting func(message string)
}

func (o *Options) complete() error {
	if !filepath.IsAbs(o.Root) || filepath.Clean(o.Root) == "/" {
		return fmt.Errorf("root %q must be an absolute path of its own: %w", o.Root, errdefs.ErrInvalidArgument)
	}
	o.Root = filepath.Clean(o.Root)
	defaults := config.Default()
	if o.Snapshotter == nil {
		o.Snapshotter = &defaults.Snapshotter
	}
	if o.Limits == nil {
		o.Limits = &defaults.Limits
	}
	return nil
}
