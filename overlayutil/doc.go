// SPDX-License-Identifier: Apache-2.0

// Package overlayutil knows the kernel's overlay file system, and nothing about
// snapshots, stores or images: how a chain of layer directories becomes a mount
// ([Lowers], [Plan]), how whiteouts and opaque directories are written on disk
// and named in a tar ([ParseOCIName], [MakeWhiteout], [XattrNamespace]), what an
// id mapping label may say ([ParseIDMap]), and what the running kernel and a
// given directory can do ([CheckRoot] and the probes).
//
// Stacks are pure functions over plain values: the same plan gives the same
// mounts. Kernel features are tried out, never concluded from a version number.
package overlayutil
