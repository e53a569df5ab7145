// SPDX-License-Identifier: Apache-2.0

// Command bench measures how fast image layers become snapshots with Strata and with
// containerd's own overlayfs snapshotter and walking differ, and whether both make
// the same trees. It needs root, and containerd in .cache/bin (hack/deps.sh demo).
//
//	make bench                      a small corpus, made here, in a few minutes
//	make bench CORPUS=DIR           a corpus of real layers
//	go run ./bench -corpus DIR -run '^whole' -n 5 -json result.json
//	go run ./bench -corpus DIR -floor
//	make bench-sharing              pulls of images with common layers
//	make bench-metadata             operations on up to 100,000 snapshots
//	make bench-calm                 calls while much is removed
//
// The last three are -sharing, -metadata and -calm, which can be given together; with -quick
// they take a minute. docs/benchmarks.md describes them; the rest of this is about
// unpacking.
//
// # What is measured
//
// Each side has a containerd of its own with everything on a freshly made file system
// of its own on a loop device. One containerd uses its overlayfs snapshotter and its
// walking differ; the other one has Strata as proxy snapshotter and proxy differ.
// External gzip programs are switched off, so that containerd's own inflate is what
// is compared. The layers lie in both content stores, and in the page cache, before
// the clock starts, and ten times as much memory as they take, or most of what is free, was
// touched: a virtual machine that gives free memory back to its host would otherwise measure
// its host. What is timed is containerd's own unpacker, as a pull runs it, against
// containerd's socket: one layer after another, or three at once. But for durability Strata
// has its default configuration: it unpacks the next layers of an image while containerd
// waits for one (unpack_ahead).
//
// Runs alternate between the sides. After each one, outside of the time, snapshots are
// removed, and the file system is flushed and seen to be empty again. The ratio is
// that of two neighbouring runs: containerd's time by Strata's.
//
// CPU is user and system time of the daemons: for Strata its own and its containerd's.
// Memory is the peak resident size over that right after the daemon's start: for
// containerd of containerd, for Strata of its daemon alone. Daemons are started anew
// for each scenario.
//
// Modes: "off" is Strata with durability "none", and both containerds with no_sync for
// their metadata; "on" is Strata with durability "commit" and containerd with its sync of the file system
// after each layer (sync_fs); "asis" is a durable Strata and containerd as it comes.
//
// # A corpus
//
// A directory with X.tar.gz and X.tar.zst for X in a (a distribution's base), b (a
// package installation on it), c (an application of very many small files), d (a
// toolchain), e (few huge files), and small layers as f/NNN.tar.gz and .tar.zst.
// Scenarios whose layers are not all there are left out, and said to be.
//
// # Results
//
// A table, and with -json all single values. A goal is shown for real layers; "<" is
// before one that was not reached. The exit code is 1 where an unpack failed or trees
// differ in anything but what containerd is known to get wrong: metadata of directories
// that a layer has no entry for, and names of deleted files that are listed where nothing
// is merged. Slowness is no failure: a machine may be shared.
package main
