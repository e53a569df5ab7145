// SPDX-License-Identifier: Apache-2.0

// Package fsck looks a Strata root over and puts right what can be put right.
//
// Check reads: it holds metadata.db against itself, against the directories, and those
// against what layer.json says. What it finds are values with stable codes. Repair
// shows what it would do first, does it, and looks again. It deletes nothing that a
// snapshot could stand on: where data is gone, the finding names everything that needs
// it.
//
// Both hold the lock of the root: a daemon that serves it must be stopped.
package fsck
