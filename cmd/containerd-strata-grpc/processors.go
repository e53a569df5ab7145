// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"runtime"
)

// backgroundThreads is how many threads delete what was removed, see package layerstore.
const backgroundThreads = 2

// spareProcessors gives the runtime a processor for each thread that works in the
// background. Those have a low priority for the kernel, but not for the runtime: a thread
// in a row of short system calls keeps its processor for ten milliseconds, also while
// the kernel runs somebody else, and on a small machine all calls would wait for it.
//
// GOMAXPROCS in the environment, see runtime, is left to whoever set it.
func spareProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + backgroundThreads)
	}
}
