// SPDX-License-Identifier: Apache-2.0

// Package integration holds the end-to-end tests: real containerd, real runc, real
// CRI pods, on a real Strata daemon. They need root and the programs that
// hack/deps.sh test puts into .cache/bin; `make integration` runs them.
//
// Every test has a containerd and a Strata of its own in a temporary directory, and
// ends with checks that nothing is left of them: no mounts, processes, control
// groups, snapshots or layers.
//
// Environment:
//
//	STRATA_TEST_BIN          directory of the programs (default .cache/bin)
//	STRATA_TEST_SNAPSHOTTER  another snapshotter's name, to tell whether a failure is Strata's ("overlayfs")
//	STRATA_TEST_DAEMON       the daemon for a copy of a test in a user namespace; set by the tests themselves
//	STRATA_TEST_RACE         "off" builds the daemon without the race detector
package integration
