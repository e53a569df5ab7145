// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const namespace = "strata-bench"

// side is one of the two that are compared: a containerd, with or without Strata, on
// a file system of its own.
type side struct {
	name        string
	snapshotter string
	differ      string
	containerd  string // program
	strata      string // program, empty for the side without
	unpacks     int    // layers at once, in containerd's own pulls; 0: it makes none
	extra       string // lines for Strata's configuration, of the snapshotter
	fs          *filesystem
	daemons     []*daemon // the one whose memory is reported is first
	client      *containerd.Client
	images      map[string]ocispec.Descriptor // manifests by scenarios' keys
}

func newSides(o options) [2]*side {
	program := filepath.Join(o.bin, "containerd")
	return [2]*side{
		{name: "containerd", snapshotter: "overlayfs", differ: "walking", containerd: program},
		{name: "strata", snapshotter: "strata", differ: "strata-diff", containerd: program, strata: o.strata},
	}
}

// open makes the file system and fills the content store with the scenarios' images.
func (s *side) open(ctx context.Context, o options, dir, durability string, c *corpus, scenarios []scenario) (err error) {
	if s.fs, err = newFilesystem(ctx, o, filepath.Join(dir, s.name)); err != nil {
		return err
	}
	if err := s.writeConfigs(durability); err != nil {
		return err
	}
	if err := s.start(ctx); err != nil {
		return err
	}
	if err := s.ingest(ctx, c, scenarios); err != nil {
		return fmt.Errorf("filling the content store: %w", err)
	}
	if s.fs.empty, err = s.fs.inodes(); err != nil {
		return err
	}
	return s.fs.flush()
}

func (s *side) start(ctx context.Context) error {
	if s.strata != "" {
		if err := s.startStrata(ctx); err != nil {
			return err
		}
	}
	d, err := startDaemon(s.fs.dir, s.containerd, "--config", s.file("containerd.toml"))
	if err != nil {
		return err
	}
	s.daemons = append(s.daemons, d)
	if err := eventually(ctx, "containerd answers", s.daemons, func() error { return s.connect(ctx) }); err != nil {
		return err
	}
	for _, d := range s.daemons {
		if d.idle, err = memory(d.pid(), "VmRSS"); err != nil {
			return err
		}
	}
	return nil
}

func (s *side) startStrata(ctx context.Context) error {
	socket := s.file("strata.sock")
	d, err := startDaemon(s.fs.dir, s.strata, "--config", s.file("strata.toml"), "--root", s.file("strata"),
		"--address", socket, "--containerd-address", s.file("c.sock"))
	if err != nil {
		return err
	}
	s.daemons = append(s.daemons, d)
	return eventually(ctx, "Strata answers", s.daemons, func() error {
		conn, err := net.DialTimeout("unix", socket, time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

func (s *side) connect(ctx context.Context) (err error) {
	if s.client == nil {
		if s.client, err = containerd.New(s.file("c.sock"), containerd.WithTimeout(5*time.Second)); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if ok, err := s.client.IsServing(ctx); !ok {
		return errors.Join(errors.New("not serving"), err)
	}
	return nil
}

// stop ends the daemons, containerd first: it is the other's client.
func (s *side) stop() (err error) {
	if s.client != nil {
		err = s.client.Close()
		s.client = nil
	}
	for i := len(s.daemons) - 1; i >= 0; i-- {
		err = errors.Join(err, s.daemons[i].stop())
	}
	s.daemons = nil
	return err
}

func (s *side) close() error {
	err := s.stop()
	if s.fs != nil {
		err = errors.Join(err, s.fs.close())
	}
	return err
}

func inNamespace(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, namespace)
}
