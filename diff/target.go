// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/archive"
)

// Staging finds out about snapshots that layers are unpacked into.
type Staging interface {
	// Stage returns the empty upper directory of the active snapshot that mounts
	// belong to, which nobody but the caller uses until Release. It waits for others
	// who extract the same blob. ErrNotFound: the mounts are not of this store, or
	// something is in the directory already; the layer is then extracted onto the
	// mounts.
	Stage(ctx context.Context, mounts []mount.Mount, blob ocispec.Descriptor) (Stage, error)
}

// Stage is a snapshot that one layer is being extracted into.
type Stage interface {
	// Dir is the empty upper directory. Release closes it.
	Dir() *os.File
	// Options are those of the layer: where marks are kept, limits.
	Options() archive.Options
	// MayAdopt says whether it is worth calling Adopt.
	MayAdopt() bool
	// Adopt gives the snapshot the layer of the blob, if that is here already. The
	// caller has made sure that the client may have the blob.
	Adopt(ctx context.Context) (result archive.Result, adopted bool, err error)
	// Seal remembers for Commit that the directory holds the layer of desc, and that
	// its blob has the diffID of result.
	Seal(ctx context.Context, desc ocispec.Descriptor, result archive.Result) error
	// Release ends the use of the directory. It is called once, also after a failure.
	Release() error
}

// checkTarget refuses what no layer can be extracted into.
func checkTarget(mounts []mount.Mount) error {
	if len(mounts) == 0 {
		return fmt.Errorf("there are no mounts to apply the layer to: %w", errdefs.ErrInvalidArgument)
	}
	for _, m := range mounts {
		if strings.Contains(m.Type, "/") {
			return fmt.Errorf("mounts of type %q need containerd's mount manager, list a differ that has it in containerd's diff-service: %w", m.Type, errdefs.ErrNotImplemented)
		}
	}
	if last := mounts[len(mounts)-1]; last.ReadOnly() {
		return fmt.Errorf("the %s mount to apply the layer to is read-only, prepare an active snapshot: %w", last.Type, errdefs.ErrInvalidArgument)
	}
	return nil
}

// extract finds out what kind of target mounts are and extracts l there. Only
// targets of others are synced: a Stage is by its Commit.
func (d *Differ) extract(ctx context.Context, l *layer, mounts []mount.Mount, sync bool) (archive.Result, error) {
	if d.cfg.Staging != nil {
		stage, err := d.cfg.Staging.Stage(ctx, mounts, l.desc)
		if err == nil {
			return extractStage(ctx, l, stage)
		}
		if !errdefs.IsNotFound(err) {
			return archive.Result{}, fmt.Errorf("use the snapshot's directory: %w", err)
		}
	}
	// What is written to a directory of somebody else's can't be taken back.
	if err := l.allowed(); err != nil {
		return archive.Result{}, err
	}
	if o, ok := overlayOf(mounts); ok && o.upper != "" && allEmpty(append(o.lowers, o.upper)) {
		return d.extractUpper(ctx, l, o, sync)
	}
	return d.extractMounted(ctx, l, mounts, sync)
}

func extractStage(ctx context.Context, l *layer, stage Stage) (_ archive.Result, err error) {
	defer func() { err = errors.Join(err, stage.Release()) }()
	if result, adopted, err := adopt(ctx, l, stage); adopted || err != nil {
		return result, err
	}
	result, err := run(ctx, archive.Apply, l, stage.Dir(), stage.Options())
	if err != nil {
		return archive.Result{}, err
	}
	return result, stage.Seal(ctx, l.desc, result)
}

// adopt asks the stage for the layer once it is certain that the client has its blob.
func adopt(ctx context.Context, l *layer, stage Stage) (archive.Result, bool, error) {
	if !stage.MayAdopt() {
		return archive.Result{}, false, nil
	}
	if err := l.allowed(); err != nil {
		return archive.Result{}, false, err
	}
	return stage.Adopt(ctx)
}

// extractUpper is for an overlay with nothing below it. containerd's unpacker makes
// one for each layer that it unpacks before it knows the layer's parent. Deletions
// must become whiteouts there, which the kernel would not make in a mount of it.
func (d *Differ) extractUpper(ctx context.Context, l *layer, o overlay, sync bool) (_ archive.Result, err error) {
	dir, err := openDir(o.upper)
	if err != nil {
		return archive.Result{}, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	result, err := run(ctx, archive.Apply, l, dir, archive.Options{Xattrs: o.xattrs, Limits: d.cfg.Limits})
	if err != nil {
		return archive.Result{}, err
	}
	if result.Needs.Mounted != "" {
		return archive.Result{}, fmt.Errorf("the layer can't be unpacked before those below it (%s), set max_concurrent_unpacks to 1 for this snapshotter: %w", result.Needs.Mounted, errdefs.ErrFailedPrecondition)
	}
	if !result.Needs.None() {
		// No snapshotter but Strata's asks the parents for them at Commit. containerd's
		// own differ leaves them like this, too.
		log.G(ctx).WithField("digest", l.desc.Digest).WithField("directories", len(result.Needs.Dirs)).
			Info("directories that the layer has no entries for have mode 0755 and belong to root: the layers below are not known")
	}
	return result, syncDir(dir, sync)
}

// extractMounted is right for every target, as it sees what a reader of it sees.
func (d *Differ) extractMounted(ctx context.Context, l *layer, mounts []mount.Mount, sync bool) (result archive.Result, err error) {
	err = mount.WithTempMount(ctx, mounts, func(root string) (err error) {
		dir, err := openDir(root)
		if err != nil {
			return err
		}
		// Before the unmount, which an open directory makes fail.
		defer func() { err = errors.Join(err, dir.Close()) }()
		result, err = run(ctx, archive.ApplyOnto, l, dir, archive.Options{Limits: d.cfg.Limits})
		if err != nil {
			return err
		}
		return syncDir(dir, sync)
	})
	if err != nil {
		return archive.Result{}, err
	}
	return result, nil
}

func openDir(path string) (*os.File, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("directory %q of a mount is not an absolute path: %w", path, errdefs.ErrInvalidArgument)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// syncDir syncs the file system of dir if containerd was configured to ask for it.
func syncDir(dir *os.File, asked bool) error {
	if !asked {
		return nil
	}
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("sync the file system of %s: %w", dir.Name(), err)
	}
	return nil
}

// allEmpty says whether there is nothing in any of the directories. One that can't
// be read counts as having something.
func allEmpty(dirs []string) bool {
	for _, dir := range dirs {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			return false
		}
	}
	return true
}
