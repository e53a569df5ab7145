// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/storeview"
)

const (
	flagBy = "by"

	byImage     = "image"
	byContainer = "container"
	byLayer     = "layer"
)

// duRow is what one image, container or layer takes. Fields stay as they are.
type duRow struct {
	Kind      storeview.Kind `json:"kind"`
	Namespace string         `json:"namespace"`
	Name      string         `json:"name"`
	Image     string         `json:"image,omitempty"`
	Number    uint64         `json:"number"`
	Layers    int            `json:"layers"`
	// Size is Own and Shared together.
	Size int64 `json:"size"`
	// Own is in nothing else of this kind; of a container, what was written to it.
	Own    int64 `json:"own"`
	Shared int64 `json:"shared"`
	// Reclaimable is what removing this one alone would give back.
	Reclaimable int64 `json:"reclaimable"`
}

// layerUse is a layer and what for it is there. Fields stay as they are.
type layerUse struct {
	Number    uint64       `json:"number"`
	DiffID    string       `json:"diffID"`
	Kind      string       `json:"kind"`
	Size      int64        `json:"size"`
	Inodes    int64        `json:"inodes"`
	Shared    bool         `json:"shared"`
	Snapshots int          `json:"snapshots"`
	UsedBy    []holderName `json:"usedBy"`
	// Reclaimable is its size if no image, container or view holds it, and 0 where no
	// names of images are known.
	Reclaimable int64 `json:"reclaimable"`
}

func duCommand() *cli.Command {
	return &cli.Command{
		Name:  "du",
		Usage: "show what images, containers and layers take on disk",
		Description: "Own is what nothing else of the kind has: of an image, layers that are in no other image; of a container, what was written to it. " +
			"Reclaimable is what removing this one alone would give back: layers of an image that a container stands on stay. " +
			"Chains are snapshots that nothing stands on and that are no known image's. With --" + flagBy + " " + byLayer + ", every layer is listed once: the sum is what layers take.",
		Flags: lookFlags(append(listFlags(), noMeasureFlag(),
			&cli.StringFlag{Name: flagBy, Usage: "list `KIND` only: " + byImage + " (chains too), " + byContainer + " (views and extractions too) or " + byLayer})...),
		Action: runDu,
	}
}

func runDu(ctx context.Context, cmd *cli.Command) error {
	if _, err := arguments(cmd, 0, 0); err != nil {
		return err
	}
	by := cmd.String(flagBy)
	if !slices.Contains([]string{"", byImage, byContainer, byLayer}, by) {
		return usage(cmd, "--%s %s is none of %s, %s and %s", flagBy, by, byImage, byContainer, byLayer)
	}
	return lookAt(ctx, cmd, func(v *storeview.View) error {
		if by == byLayer {
			return printLayers(cmd, v)
		}
		return printHolders(ctx, cmd, v, by)
	})
}

func printHolders(ctx context.Context, cmd *cli.Command, v *storeview.View, by string) error {
	rows := []duRow{}
	for _, h := range v.Holders {
		isImage := h.Kind == storeview.KindImage || h.Kind == storeview.KindChain
		if by != "" && isImage != (by == byImage) {
			continue
		}
		row, err := newDuRow(ctx, cmd, v, h)
		if err != nil {
			return err
		}
		rows = append(rows, row)
	}
	return printList(cmd, []column[duRow]{
		{"KIND", func(r duRow) string { return string(r.Kind) }},
		{"NAMESPACE", func(r duRow) string { return orDash(r.Namespace) }},
		{"NAME", func(r duRow) string { return shortName(r.Name) }},
		{"LAYERS", func(r duRow) string { return strconv.Itoa(r.Layers) }},
		{"SIZE", func(r duRow) string { return size(r.Size) }},
		{"OWN", func(r duRow) string { return size(r.Own) }},
		{"SHARED", func(r duRow) string { return size(r.Shared) }},
		{"RECLAIMABLE", func(r duRow) string { return size(r.Reclaimable) }},
	}, rows)
}

func newDuRow(ctx context.Context, cmd *cli.Command, v *storeview.View, h *storeview.Holder) (duRow, error) {
	split := h.Split()
	row := duRow{
		Kind: h.Kind, Namespace: h.Namespace, Name: h.Name, Image: h.Image, Number: h.Top.Number, Layers: len(h.Layers),
		Own: split.Own, Shared: split.Shared, Reclaimable: split.Reclaimable,
	}
	if !cmd.Bool(flagNoMeasure) {
		written, err := v.Written(ctx, h.Top)
		if err != nil {
			return row, fmt.Errorf("measure snapshot %d: %w", h.Top.Number, err)
		}
		row.Own += written.Bytes
		row.Reclaimable += written.Bytes
	}
	row.Size = row.Own + row.Shared
	return row, nil
}

func printLayers(cmd *cli.Command, v *storeview.View) error {
	rows := make([]layerUse, 0, len(v.Layers))
	for _, l := range v.Layers {
		rows = append(rows, newLayerUse(v, l))
	}
	return printList(cmd, []column[layerUse]{
		{"LAYER", func(r layerUse) string { return strconv.FormatUint(r.Number, 10) }},
		{"DIFFID", func(r layerUse) string { return orDash(shortName(r.DiffID)) }},
		{"KIND", func(r layerUse) string { return r.Kind }},
		{"SIZE", func(r layerUse) string { return size(r.Size) }},
		{"RECLAIMABLE", func(r layerUse) string { return size(r.Reclaimable) }},
		{"SNAPSHOTS", func(r layerUse) string { return strconv.Itoa(r.Snapshots) }},
		{"USED BY", func(r layerUse) string { return orDash(joinHolders(r.UsedBy)) }},
	}, rows)
}

func newLayerUse(v *storeview.View, l *storeview.Layer) layerUse {
	row := layerUse{
		Number: l.Number, DiffID: l.DiffID.String(), Kind: layerKind(l), Size: l.Size, Inodes: l.Inodes,
		Shared: l.Shared(), Snapshots: len(l.Snapshots), UsedBy: []holderName{},
	}
	for _, h := range l.Holders {
		row.UsedBy = append(row.UsedBy, nameOf(h))
	}
	needed := slices.ContainsFunc(l.Holders, func(h *storeview.Holder) bool { return h.Kind != storeview.KindChain })
	if v.NamesKnown() && !needed {
		row.Reclaimable = l.Size
	}
	return row
}

// layerKind says in a word what is special about a layer.
func layerKind(l *storeview.Layer) string {
	switch {
	case l.External:
		return "external"
	case l.Patch:
		return "patch"
	case l.DiffID == "":
		return "private"
	case l.Shared():
		return "shared"
	}
	return "single"
}
