// SPDX-License-Identifier: Apache-2.0

// Command soak uses Strata for as long as one likes, as a busy and unlucky machine would,
// and looks at everything that comes of it.
//
//	go run ./soak -minutes 10 -seed 7
//
// Several clients of a real containerd, in two of its namespaces, pull images from a
// registry in three ways, run containers with runc, write in them, commit them, look at
// them, and remove all of that, in an order that the seed says. Their images have layers
// in common. Meanwhile containerd collects garbage, and the daemon and containerd are
// stopped and killed, and started again. What fails while that happens is tried again;
// what fails otherwise is a finding. So is
//
//   - a container or an image that shows anything else than what was written to it, names,
//     types, modes, owners, contents, attributes and hard links included;
//   - when everything is removed in the end: a directory left in the store, a mount, a
//     process, and whatever fsck finds;
//   - a daemon that has more goroutines or descriptors then than after it was warm, or
//     clearly more memory. It is not restarted after that moment.
//
// The last line of standard output is JSON: what was done, and what was found. The exit
// code is 1 if that is anything. The same seed makes every client do the same things in
// the same order; how they meet, and when the daemon goes, is for the scheduler.
//
// It needs root, runc, and containerd with its shim in .cache/bin (hack/deps.sh test), and
// runs in a mount namespace of its own.
package main
