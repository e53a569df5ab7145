// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strconv"
	"time"

	"github.com/containerd/log"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/imagestore"
)

func imagesCommand() *cli.Command {
	return &cli.Command{
		Name:  "images",
		Usage: "list the images",
		Description: "SIZE is what the layers take on disk, each counted for every image that has it.\n" +
			"An image whose STATE is not complete is mended by pulling or loading it again.",
		Flags:  listFlags(),
		Action: images,
	}
}

// imageRow is a row of the list.
type imageRow struct {
	Name     string        `json:"name"`
	Digest   digest.Digest `json:"digest"`
	Platform string        `json:"platform"`
	Layers   int           `json:"layers"`
	Size     int64         `json:"size"` // of the layers on disk, in bytes
	State    string        `json:"state"`
	Updated  time.Time     `json:"updated"`
}

const (
	stateComplete   = "complete"
	stateIncomplete = "incomplete"
)

func images(ctx context.Context, cmd *cli.Command) error {
	if _, err := arguments(cmd, 0, 0); err != nil {
		return err
	}
	return withStore(ctx, cmd, func(ctx context.Context, s *imagestore.Store) error {
		list, problems, err := s.List(ctx)
		if err != nil {
			return err
		}
		rows := make([]imageRow, len(list))
		for i, image := range list {
			rows[i] = rowOf(ctx, s, image, problems[i])
		}
		return printList(cmd, []column[imageRow]{
			{"NAME", func(r imageRow) string { return withoutDigest(r.Name) }},
			{"DIGEST", func(r imageRow) string { return short(r.Digest) }},
			{"PLATFORM", func(r imageRow) string { return r.Platform }},
			{"LAYERS", func(r imageRow) string { return strconv.Itoa(r.Layers) }},
			{"SIZE", func(r imageRow) string { return size(r.Size) }},
			{"STATE", func(r imageRow) string { return r.State }},
		}, rows)
	})
}

func rowOf(ctx context.Context, s *imagestore.Store, image imagestore.Image, problem error) imageRow {
	row := imageRow{
		Name: image.Name, Digest: image.Target.Digest, Layers: len(image.DiffIDs),
		State: stateComplete, Updated: image.Updated.UTC(),
	}
	if image.Platform.OS != "" {
		row.Platform = platforms.Format(image.Platform)
	}
	if problem == nil {
		problem = s.Check(ctx, image)
	}
	if problem != nil {
		log.G(ctx).WithError(problem).Info("an image is not complete")
		row.State = stateIncomplete
		return row
	}
	seen := map[uint64]bool{}
	chain, err := s.Chain(ctx, image)
	if err != nil {
		row.State = stateIncomplete
	}
	for _, l := range chain {
		if !seen[l.Number] {
			seen[l.Number] = true
			row.Size += l.Usage.Size
		}
	}
	return row
}
