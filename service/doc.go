// SPDX-License-Identifier: Apache-2.0

// Package service puts the parts together as a configuration asks: a
// snapshotter and a differ behind containerd's snapshots and diff APIs on one
// unix socket, with the standard gRPC health service beside them.
//
// The socket is the only door. Its file mode keeps most processes out, and
// every connection is checked once more by the credentials the kernel keeps
// of its peer, so that a mode widened by hand opens nothing.
package service
