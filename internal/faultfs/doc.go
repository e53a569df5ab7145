// SPDX-License-Identifier: Apache-2.0

// Package faultfs is a file system for tests that fails, or hangs, where the test says:
// a FUSE file system that shows a directory. A process of its own serves it, which is the
// test binary once more. In the test's own process a page fault in a mapped file would
// wait for a goroutine that can't run before the fault is served.
//
// Only tests import it.
package faultfs
