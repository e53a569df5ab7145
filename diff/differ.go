// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/strata-snapshotter/strata/archive"
)

// Services is what a differ uses of containerd. The methods are called with the
// caller's namespace in the context, for incoming and outgoing calls.
type Services struct {
	// Content is containerd's content store with its namespaces.
	Content content.Store
	// Leases keep a blob that was just written from being collected.
	Leases leases.Manager
	// Root returns the directory that Content keeps blobs in, as blobs/ALGORITHM/HEX.
	// An error, or a directory that has not got the blob, means reading through
	// Content. nil: it always does.
	Root func(ctx context.Context) (string, error)
	// Ready waits until the others can be used. ErrUnavailable: they can't. nil:
	// they always can.
	Ready func(ctx context.Context) error
}

// Config is what a Differ is made of.
type Config struct {
	Services
	// Staging recognises the snapshots of Strata's own. nil: there are none.
	Staging Staging
	// Ahead keeps the next layers of an image while one is applied. nil: none are
	// extracted.
	Ahead Ahead
	// Owns says whether an absolute path is a directory of Strata's store. Compare
	// reads an upper directory alone only there. nil: nothing is.
	Owns func(path string) bool
	// Limits bound layers extracted anywhere but into a Stage. The zero value means
	// archive.DefaultLimits.
	Limits archive.Limits
}

// Differ is containerd's diff.Applier and diff.Comparer. Its methods may be called
// concurrently. Errors carry an errdefs class.
type Differ struct {
	cfg       Config
	foresight *foresight // nil: nothing is extracted ahead
}

var (
	_ diff.Applier  = (*Differ)(nil)
	_ diff.Comparer = (*Differ)(nil)
)

// New makes a Differ. It contacts nobody before it is called.
func New(cfg Config) *Differ {
	d := &Differ{cfg: cfg}
	d.foresight = newForesight(d, cfg.Ahead)
	return d
}

// Close ends what is extracted ahead, and waits for that. Calls under way go on. The error
// is always nil.
func (d *Differ) Close() error {
	d.foresight.close()
	return nil
}

// begin finds the caller's namespace, puts it on calls to containerd, and waits
// for containerd. A context without a namespace is ErrFailedPrecondition.
func (d *Differ) begin(ctx context.Context) (context.Context, error) {
	namespace, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return ctx, fmt.Errorf("the caller's containerd namespace: %w", err)
	}
	ctx = namespaces.WithNamespace(ctx, namespace)
	if d.cfg.Ready == nil {
		return ctx, nil
	}
	return ctx, d.cfg.Ready(ctx)
}
