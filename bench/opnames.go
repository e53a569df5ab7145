// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"
)

// chainLength is how many layers an image has, of those that fill a snapshotter.
const chainLength = 10

// opSnapshot is a layer's snapshot as containerd's metadata gives it to a snapshotter:
// the i-th that was ever made, on another one, or on none if that is negative.
type opSnapshot struct{ i, on int }

// filler is the i-th of those that fill a snapshotter.
func filler(i int) opSnapshot {
	if i%chainLength == 0 {
		return opSnapshot{i, -1}
	}
	return opSnapshot{i, i - 1}
}

func chainOf(i int) string { return digest.FromString(fmt.Sprintf("chain %d", i)).String() }

func nameOf(i int) string { return fmt.Sprintf("k8s.io/%d/%s", 2*i+1, chainOf(i)) }

func (s opSnapshot) name() string { return nameOf(s.i) }

func (s opSnapshot) key() string {
	return fmt.Sprintf("k8s.io/%d/extract-%09d-AbCd %s", 2*s.i, s.i*7919%1_000_000_000, chainOf(s.i))
}

func (s opSnapshot) parent() string {
	if s.on < 0 {
		return ""
	}
	return nameOf(s.on)
}

// labels are those that containerd's unpacker gives. No two layers are the same.
func (s opSnapshot) labels() snapshots.Opt {
	labels := map[string]string{
		snapshots.LabelSnapshotRef:    chainOf(s.i),
		snapshots.LabelSnapshotDiffID: digest.FromString(fmt.Sprintf("layer %d", s.i)).String(),
	}
	if s.on >= 0 {
		labels["containerd.io/snapshot/parent-chain-id"] = chainOf(s.on)
	}
	return snapshots.WithLabels(labels)
}

// putFile gives a layer something to hold, where it is extracted to.
func putFile(dir string) error {
	return os.WriteFile(filepath.Join(dir, "file"), []byte("a file\n"), 0o644)
}

// upperDir is where an active snapshot's changes go.
func upperDir(mounts []mount.Mount) (string, error) {
	for _, m := range mounts {
		if m.Type == "bind" {
			return m.Source, nil
		}
		for _, option := range m.Options {
			if dir, ok := strings.CutPrefix(option, "upperdir="); ok {
				return dir, nil
			}
		}
	}
	return "", errors.New("no upperdir among the mounts")
}
