// SPDX-License-Identifier: Apache-2.0

// Package failpoint names the steps at which tests make the store fail, crash or wait.
//
// Points are compiled in by the build tag failpoint alone. Without it [Hit] and [Pass]
// are empty and leave nothing in the code that calls them. With it a test sets points
// with Set and Block, and the environment sets those of a process:
//
//	STRATA_FAILPOINTS="layer-place=crash;commit-record=error@3"
//
// An action is crash (the process kills itself, as kill -9 does), error (the step fails),
// or sleep (it waits for a second). "@N" takes the Nth time that the point is reached,
// counted from 1; otherwise it is every time. A setting that makes no sense ends the
// process: a test that crashes nothing would pass.
package failpoint
