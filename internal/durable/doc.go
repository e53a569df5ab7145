// SPDX-License-Identifier: Apache-2.0

// Package durable holds the few primitives that make a change on disk survive
// a crash or a power cut, and that keep two processes off one directory.
package durable
