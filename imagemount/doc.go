// SPDX-License-Identifier: Apache-2.0

// Package imagemount mounts the images of an image store, and makes images of what was
// changed in such mounts.
//
// A mount is a snapshot of containerd's: a view, which goes when it is unmounted, or an
// active snapshot with a name, which keeps what was written until it is removed. What it
// is made of and where it is mounted stands in the snapshot's labels. The label
// containerd.io/gc.root keeps it, and the layers below it, from the garbage collector.
//
// No process stays with a mount. Where one is gone all the same, by a reboot or with the
// mount namespace that it was in, that is noticed: the record names the boot and the
// mount, for which the mount tables of all processes are looked through.
package imagemount
