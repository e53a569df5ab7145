// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Description is all that there is to say of an image.
type Description struct {
	Name      string        `json:"name"`
	Digest    digest.Digest `json:"digest"` // of what the name stands for
	MediaType string        `json:"mediaType"`
	Platform  string        `json:"platform"`
	// ChainID names the snapshot that the image is unpacked to.
	ChainID digest.Digest `json:"chainID,omitempty"`
	Updated time.Time     `json:"updated"`

	Env         []string          `json:"env"`
	Cmd         []string          `json:"cmd"`
	Entrypoint  []string          `json:"entrypoint"`
	WorkingDir  string            `json:"workingDir"`
	User        string            `json:"user"`
	Labels      map[string]string `json:"labels"`
	Healthcheck *Healthcheck      `json:"healthcheck,omitempty"`

	// Layers are bottom first.
	Layers []LayerDescription `json:"layers"`

	ManifestDigest digest.Digest   `json:"manifestDigest"`
	Manifest       json.RawMessage `json:"manifest"` // as it is
	ConfigDigest   digest.Digest   `json:"configDigest"`
	Config         json.RawMessage `json:"config"` // as it is
}

// LayerDescription is a layer as the manifest and the configuration list it.
type LayerDescription struct {
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"mediaType"`
	Size      int64         `json:"size"` // of the blob, in bytes
	DiffID    digest.Digest `json:"diffID"`
	// Blob says whether the blob is here. Without it the image can't be saved.
	Blob bool `json:"blob"`
}

// Healthcheck is that of docker's images, with docker's defaults where the image says
// nothing. Times are in seconds.
type Healthcheck struct {
	Test        []string `json:"test"`
	Interval    float64  `json:"intervalSeconds"`
	Timeout     float64  `json:"timeoutSeconds"`
	StartPeriod float64  `json:"startPeriodSeconds"`
	Retries     int      `json:"retries"`
}

// Docker's defaults (Dockerfile reference, HEALTHCHECK). A start period has none.
const (
	defaultInterval = 30 * time.Second
	defaultTimeout  = 10 * time.Second
	defaultRetries  = 3
)

// Describe reads manifest and configuration of an image.
//
// ErrNotFound: a blob is gone. ErrDataLoss: a blob can't be read as what it should be.
func (s *Store) Describe(ctx context.Context, image Image) (Description, error) {
	ctx = s.Context(ctx)
	d := Description{
		Name: image.Name, Digest: image.Target.Digest, MediaType: image.Target.MediaType,
		ChainID: image.ChainID, Updated: image.Updated.UTC(), Layers: []LayerDescription{},
		ManifestDigest: image.Manifest.Digest, ConfigDigest: image.Config.Digest,
	}
	if image.Platform.OS != "" {
		d.Platform = platforms.Format(image.Platform)
	}
	for i, l := range image.Layers {
		_, err := s.Content().Info(ctx, l.Digest)
		d.Layers = append(d.Layers, LayerDescription{
			Digest: l.Digest, MediaType: l.MediaType, Size: l.Size, DiffID: image.DiffIDs[i], Blob: err == nil,
		})
	}
	var err error
	if d.Manifest, err = s.raw(ctx, image.Manifest); err == nil {
		d.Config, err = s.raw(ctx, image.Config)
	}
	if err == nil {
		err = d.readConfig()
	}
	if err != nil {
		return d, fmt.Errorf("image %s: %w", image.Name, err)
	}
	return d, nil
}

func (s *Store) raw(ctx context.Context, desc ocispec.Descriptor) (json.RawMessage, error) {
	data, err := content.ReadBlob(ctx, s.Content(), desc)
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", desc.Digest, err)
	}
	return data, nil
}

// readConfig takes from the configuration what containers are started with.
func (d *Description) readConfig() error {
	var config struct {
		Config struct {
			ocispec.ImageConfig
			Healthcheck *struct {
				Test                           []string
				Interval, Timeout, StartPeriod time.Duration // in nanoseconds
				Retries                        int
			}
		} `json:"config"`
	}
	if err := json.Unmarshal(d.Config, &config); err != nil {
		return fmt.Errorf("config %s: %w (%w)", d.ConfigDigest, err, errdefs.ErrDataLoss)
	}
	c := config.Config
	d.Env, d.Cmd, d.Entrypoint, d.WorkingDir, d.User, d.Labels = c.Env, c.Cmd, c.Entrypoint, c.WorkingDir, c.User, c.Labels
	h := c.Healthcheck
	if h == nil || len(h.Test) == 0 || h.Test[0] == "NONE" { // NONE takes one of the base image away
		return nil
	}
	d.Healthcheck = &Healthcheck{
		Test:        h.Test,
		Interval:    orDefault(h.Interval, defaultInterval).Seconds(),
		Timeout:     orDefault(h.Timeout, defaultTimeout).Seconds(),
		StartPeriod: h.StartPeriod.Seconds(),
		Retries:     orDefault(h.Retries, defaultRetries),
	}
	return nil
}

// orDefault is value, unless that is 0, which stands for nothing said.
func orDefault[T int | time.Duration](value, byDefault T) T {
	if value == 0 {
		return byDefault
	}
	return value
}
