// SPDX-License-Identifier: Apache-2.0

// Package testutil holds what tests against the real kernel share: root and
// kernel requirements, temporary mounts that always go away, loop-mounted file
// systems, and running a test again inside a user namespace.
//
// Only tests import it.
package testutil
