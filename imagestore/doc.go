// SPDX-License-Identifier: Apache-2.0

// Package imagestore is an image store in one directory, without a daemon. It puts
// containerd's own packages together in process: the content store, the metadata
// database with its leases and garbage collection, the unpacker, the registry client
// and the importer and exporter of archives. The snapshotter and the differ are
// Strata's, as the daemon opens them.
//
//	s, err := imagestore.Open(ctx, imagestore.Options{Root: "/var/lib/strata"})
//	defer s.Close()
//	ctx = s.Context(ctx)             // names containerd's namespace, which all services ask for
//	image, err := s.Get(ctx, "docker.io/library/alpine:3.20", "")
//	dirs, err := s.Layers(ctx, image.Name)
//	mounts, err := s.Snapshotter().View(ctx, key, image.ChainID.String())
//
// # On disk
//
//	ROOT/
//	  lock        flock: one process has the root open
//	  version     the format of all this
//	  images.db   containerd's metadata: images, content, snapshots' names, leases
//	  content/    containerd's content store: blobs, and downloads that go on later
//	  store/      a root of Strata's own, see package snapshotter; mode 0700
//
// # Names
//
// A reference is written out before it is looked up (see Reference): "alpine" and
// "docker.io/library/alpine:latest" are one image. An image name stands for the
// platform that it was pulled for last.
//
// # Garbage
//
// What no image refers to goes with GC. Snapshots that a caller wants to keep carry
// the label containerd.io/gc.root; what is being worked on is held by a lease (see
// Lease).
package imagestore
