// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/userns"
	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/extstore"
	"github.com/strata-snapshotter/strata/imagestore"
	"github.com/strata-snapshotter/strata/overlayutil"
	"github.com/strata-snapshotter/strata/storeview"
)

func storeExportCommand() *cli.Command {
	return &cli.Command{
		Name:      "export",
		Usage:     "copy the layers of images to an additional store",
		ArgsUsage: "REFERENCE|DIFFID... DIRECTORY",
		Description: "The directory is made if it is not there; layers that it has are left as they are. A layer that is not shared, as other differs extract them, can't be exported. " +
			"The store may be a running daemon's: a layer that is removed meanwhile is not exported.",
		Flags:  lookFlags(listFlags()...),
		Action: runStoreExport,
	}
}

func runStoreExport(ctx context.Context, cmd *cli.Command) error {
	args, err := arguments(cmd, 2, -1)
	if err != nil {
		return err
	}
	refs, dir := args[:len(args)-1], args[len(args)-1]
	return lookAt(ctx, cmd, func(v *storeview.View) error {
		layers, err := layersFor(v, refs)
		if err != nil {
			return err
		}
		x := exporting{view: v, blobs: blobsByLayer(v)}
		rows := []storeRow{}
		for _, l := range layers {
			exported, err := x.export(ctx, l, dir)
			if err != nil {
				return err
			}
			rows = append(rows, newStoreRow(extstore.Listed{DiffID: l.DiffID, Layer: exported}))
		}
		return printStore(cmd, rows)
	})
}

// layersFor are the layers of images, or single ones, each once. Patches are left out:
// whoever uses the layers makes their own.
func layersFor(v *storeview.View, refs []string) (list []*storeview.Layer, err error) {
	seen := map[*storeview.Layer]bool{}
	for _, ref := range refs {
		found, err := findLayers(v, ref)
		if err != nil {
			return nil, err
		}
		for _, l := range found {
			if !seen[l] && !l.Patch {
				seen[l] = true
				list = append(list, l)
			}
		}
	}
	return list, nil
}

// findLayers gives the layers of an image, by its name or digest, or the layer of a diffID.
func findLayers(v *storeview.View, ref string) (list []*storeview.Layer, err error) {
	full, err := imagestore.WriteOut(ref, os.Getenv(registryEnv))
	if err != nil {
		full = ref // other clients of containerd have names of their own
	}
	found := false
	for _, h := range v.Holders {
		if h.Kind == storeview.KindImage && (h.Name == ref || h.Name == full || h.Digest.String() == ref) {
			list, found = append(list, h.Layers...), true
		}
	}
	for _, l := range v.Layers {
		if l.DiffID != "" && l.DiffID.String() == ref {
			list, found = append(list, l), true
		}
	}
	if !found {
		return nil, fmt.Errorf("%s has no image or layer %q: %w", v.Root, ref, errdefs.ErrNotFound)
	}
	return list, nil
}

func blobsByLayer(v *storeview.View) map[digest.Digest][]digest.Digest {
	blobs := map[digest.Digest][]digest.Digest{}
	for blob, diffID := range v.Blobs {
		blobs[diffID] = append(blobs[diffID], blob)
	}
	return blobs
}

type exporting struct {
	view  *storeview.View
	blobs map[digest.Digest][]digest.Digest
}

func (x exporting) export(ctx context.Context, l *storeview.Layer, dir string) (layer extstore.Layer, err error) {
	if l.DiffID == "" {
		return layer, fmt.Errorf("layer %d belongs to one chain and can't be exported; pull the image with Strata's differ: %w", l.Number, errdefs.ErrFailedPrecondition)
	}
	m, err := x.view.Looker().ReadManifest(l.Number)
	if err != nil {
		return layer, err
	}
	layer = extstore.Layer{
		DiffID: l.DiffID, Size: m.Size, Bytes: m.Bytes, Inodes: m.Inodes, Empty: m.Empty, OpaqueRoot: m.OpaqueRoot,
		Xattrs: overlayutil.Trusted, Created: m.Created, Blobs: x.blobs[l.DiffID],
		StillThere: func() error { return x.stillThere(ctx, l) },
	}
	if userns.RunningInUserNS() {
		layer.Xattrs = overlayutil.User
	}
	if len(m.Needs) > 0 {
		if err := json.Unmarshal(m.Needs, &layer.Needs); err != nil {
			return layer, fmt.Errorf("layer %d: needs: %w (%w)", l.Number, err, errdefs.ErrDataLoss)
		}
	}
	if layer.Dir, err = x.view.Looker().OpenLayer(l.Number); err != nil {
		return layer, err
	}
	defer func() { err = errors.Join(err, layer.Close()) }()
	return layer, extstore.Export(ctx, dir, layer)
}

// stillThere: a layer is deleted only after metadata.db has said that it is gone.
func (x exporting) stillThere(ctx context.Context, l *storeview.Layer) error {
	there, err := x.view.StillThere(ctx, l)
	if err != nil {
		return err
	}
	if !there {
		return fmt.Errorf("layer %d was removed while it was copied, pull the image again: %w", l.Number, errdefs.ErrUnavailable)
	}
	return nil
}
