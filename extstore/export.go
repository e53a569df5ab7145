// SPDX-License-Identifier: Apache-2.0

package extstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/userns"
	"github.com/opencontainers/go-digest"
	"github.com/strata-snapshotter/strata/overlayutil"
	"golang.org/x/sys/unix"
)

// Export copies a layer into the store dst, which is made if it is not there. A
// layer that the store has is left as it is; blobs it did not know of are added.
// A crash leaves nothing that look-ups see, and any number of processes may
// export at once. When Export returns the layer survives a power cut.
//
// ErrInvalidArgument: the layer's description makes no sense. ErrFailedPrecondition:
// dst can't hold it, is no store, or is one of a newer version; or the layer
// belongs to one chain. ErrResourceExhausted: dst is full.
func Export(ctx context.Context, dst string, l Layer) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("export layer %s to %s: %w", l.DiffID, dst, classify(err))
		}
	}()
	if err := checkExport(&l); err != nil {
		return err
	}
	if err := os.MkdirAll(dst, 0o755); err != nil {
		return err
	}
	x := &exporter{layer: l}
	defer func() { err = errors.Join(err, x.close()) }()
	if err := x.open(ctx, dst); err != nil {
		return err
	}
	return x.run(ctx)
}

func checkExport(l *Layer) error {
	if err := validate("diffID", l.DiffID); err != nil {
		return err
	}
	for _, blob := range l.Blobs {
		if err := validate("blob", blob); err != nil {
			return err
		}
	}
	if l.Xattrs == "" {
		l.Xattrs = overlayutil.Trusted
	}
	switch {
	case l.Dir == nil:
		return fmt.Errorf("its directory is not open: %w", errdefs.ErrInvalidArgument)
	case l.Bytes < 0 || l.Inodes < 1 || l.Size < 0:
		return fmt.Errorf("a usage of %d bytes and %d inodes makes no sense: %w", l.Bytes, l.Inodes, errdefs.ErrInvalidArgument)
	case namespaces[namespaceName(l.Xattrs)] == "":
		return fmt.Errorf("attribute namespace %q is not known: %w", l.Xattrs, errdefs.ErrInvalidArgument)
	case l.Needs.Mounted != "":
		return fmt.Errorf("it can only be extracted onto the layers of one image (%s): %w", l.Needs.Mounted, errdefs.ErrFailedPrecondition)
	}
	return seesMarks(l.Xattrs)
}

// seesMarks makes sure that overlay's marks are visible: the kernel leaves trusted
// attributes out of listings without a word where there is no privilege, and a
// deleted directory would come back.
func seesMarks(ns overlayutil.XattrNamespace) error {
	if ns != overlayutil.Trusted {
		return nil
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read the capabilities of this process: %w", err)
	}
	if data[0].Effective&(1<<unix.CAP_SYS_ADMIN) == 0 || userns.RunningInUserNS() {
		return fmt.Errorf("overlay's marks can't be read without CAP_SYS_ADMIN, export as root: %w", errdefs.ErrFailedPrecondition)
	}
	return nil
}

// exporter is an export under way.
type exporter struct {
	layer Layer
	store *os.File
	root  *os.Root // store, for removing trees in it
	temp  *os.File // its own directory in the store, locked
	algo  *os.File // where the layer's directory goes
}

func (x *exporter) open(ctx context.Context, dst string) (err error) {
	fd, err := retry(func() (int, error) { return unix.Open(dst, dirFlags, 0) })
	if err != nil {
		return err
	}
	x.store = os.NewFile(uintptr(fd), dst)
	if x.root, err = os.OpenRoot(dst); err != nil {
		return err
	}
	if err := sweepTemp(ctx, x.store, x.root); err != nil {
		return err
	}
	if x.temp, err = makeTemp(x.store); err != nil {
		return err
	}
	if err := x.describeStore(); err != nil {
		return err
	}
	// 0700: a layer has files with setuid, which are not for users of the host.
	x.algo, err = x.directory(0o700, layersDir, x.layer.DiffID.Algorithm().String())
	return err
}

func (x *exporter) close() error {
	var errs []error
	if x.temp != nil {
		errs = append(errs, x.root.RemoveAll(x.temp.Name()), x.temp.Close())
	}
	if x.root != nil {
		errs = append(errs, x.root.Close())
	}
	for _, f := range []*os.File{x.algo, x.store} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// describeStore makes a directory a store, unless it is one.
func (x *exporter) describeStore() error {
	var info storeInfo
	_, err := readJSON(x.store, storeFile, &info)
	if errors.Is(err, unix.ENOENT) {
		if err := x.refuseForeign(); err != nil {
			return err
		}
		return x.writeJSON(storeInfo{Format: storeFormat, Version: version}, 0o644, x.store, storeFile)
	}
	if err == nil {
		err = info.check()
	}
	if err != nil {
		return fmt.Errorf("%s: %w (%w)", storeFile, err, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// refuseForeign keeps an export out of a directory that has something else in it.
func (x *exporter) refuseForeign() error {
	dir, err := openIn(x.store, ".", dirFlags, inTree)
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	if err := errors.Join(err, dir.Close()); err != nil {
		return err
	}
	known := []string{storeFile, layersDir, blobsDir, "lost+found"}
	for _, name := range names {
		if !slices.Contains(known, name) && !isTemp(name) {
			return fmt.Errorf("it has %q in it and is no store, name an empty directory: %w", name, errdefs.ErrFailedPrecondition)
		}
	}
	return nil
}

// run publishes the layer, unless the store has it, and what is known of it.
func (x *exporter) run(ctx context.Context) error {
	have, err := x.published()
	if err != nil {
		return err
	}
	if have == nil {
		if err := x.build(ctx); err != nil {
			return err
		}
		if x.layer.StillThere != nil {
			if err := x.layer.StillThere(); err != nil {
				return err
			}
		}
		if have, err = x.publish(ctx); err != nil {
			return err
		}
	}
	return x.addBlobs(have)
}

// published returns what layer.json of the layer in the store says, or nil.
func (x *exporter) published() (*manifest, error) {
	var m manifest
	_, err := readJSON(x.algo, x.layer.DiffID.Encoded()+"/"+layerFile, &m)
	var bad *damage
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, nil
	case errors.As(err, &bad), err == nil && m.check(x.layer.DiffID) != nil:
		return nil, fmt.Errorf("the store has a damaged %s of it, remove %s/%s: %w", layerFile, x.store.Name(), layerPath(x.layer.DiffID), errdefs.ErrFailedPrecondition)
	}
	return &m, err
}

// addBlobs notes which blobs unpack to the layer.
func (x *exporter) addBlobs(have *manifest) error {
	var unknown []digest.Digest
	for _, blob := range x.layer.Blobs {
		if !slices.Contains(have.Blobs, blob) && !slices.Contains(unknown, blob) {
			unknown = append(unknown, blob)
		}
	}
	if len(unknown) > 0 {
		have.Blobs = append(have.Blobs, unknown...)
		if err := x.replaceManifest(have); err != nil {
			return err
		}
	}
	for _, blob := range x.layer.Blobs {
		if err := x.noteBlob(blob); err != nil {
			return err
		}
	}
	return nil
}
