// SPDX-License-Identifier: Apache-2.0

// Package rootless runs the calling program again as root of a user namespace of its
// own, with the subordinate ids that the administrator gave to the user, and in a mount
// namespace in which it may mount.
//
// It takes two steps, because a Go program has threads, and a process with threads can
// not enter a user namespace:
//
//	Run                 a copy of the program is started in the new namespaces; it has no
//	                    ids there yet, and so no privilege, and waits in Continue
//	newuidmap PID …     started by Run, gives the namespace its ids; without it Run maps
//	                    the user's own id alone
//	Continue            executes the program once more, which makes it root there
//
// The process that called Run stays, hands on signals, and ends as the copy ends.
package rootless
