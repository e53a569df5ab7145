// SPDX-License-Identifier: Apache-2.0

// Command crash shows that nothing that Strata has answered for is lost, whatever
// happens to the machine or to the daemon.
//
//	go run ./crash -fs ext4 -cuts 20 -kills 50 -seed 7
//
// Each run makes a file system in a file, starts the daemon on it, and unpacks layers,
// writes into snapshots, commits and removes them from several clients at a time. At
// some moment the power is cut: an ioctl makes the file system forget all that is only
// in memory, its journal included. Or the daemon is killed. Then the daemon is started
// again, on what is there, and everything is looked at:
//
//   - a snapshot whose Commit was answered is listed, one whose Remove was answered is not;
//   - of a Commit under way either the active snapshot is there or the committed one;
//   - every listed committed snapshot shows exactly what was put into it: names, types,
//     modes, owners, sizes, contents, attributes, hard links and times;
//   - after a kill, so does every active snapshot that a container had written to;
//   - one Cleanup leaves no directory that nothing names, and every layer has its layer.json;
//   - fsck finds nothing after that, and nothing in the end;
//   - the daemon goes on: it unpacks, commits, and removes everything.
//
// A run is a line of JSON on standard output, with its seed; "-seed S -cuts 1" makes it
// again, as far as the scheduler does the same. The last line is the sum. The exit code
// is 1 if anything was found.
//
// -prove shows that the command can find something: it runs with durability = "none",
// and fails if nothing is lost.
//
// What was written to the file under the file system counts as written: a disk that
// keeps writes in a cache of its own, and loses that, is not simulated. btrfs has no
// such ioctl: there the file is copied while nothing can be written to it, and the copy
// is what comes up again.
//
// It needs root, loop devices and mkfs, and leaves nothing mounted: it runs in a mount
// namespace of its own.
package main
