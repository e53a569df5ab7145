// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/strata-snapshotter/strata/cmd/fsckcommand"

// exitCode is the code that the program ends with after err, and whether there is
// something to say about it.
func exitCode(err error) (code int, say bool) {
	if code, say, ok := fsckcommand.ExitCode(err); ok {
		return code, say
	}
	return 1, true
}
