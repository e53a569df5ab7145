// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"runtime/debug"
)

const (
	// gcPercent and gcReserve make the heap grow by gcPercent of what is live and
	// gcReserve together before garbage is collected: by 9 MiB where little is
	// live, by 22 where 60 MiB are.
	gcPercent = 25
	gcReserve = 32 << 20 // bytes
)

// limitGarbage keeps the garbage that waits to be collected small, and returns
// what the caller must keep for as long as that is to hold.
//
// Half of what a daemon that applies four zstd layers takes would be garbage by
// the runtime's default, which lets the heap double: their windows are live, 9 MiB
// each, and are counted like all else, though they are no work for the collector.
// A lower percentage alone would make it run all the time while little is live. So
// the percentage is of a reserve, too, which is never touched and takes no memory
// but addresses. debug.SetMemoryLimit would not do: over it, as with many layers
// at once, the collector never rests.
//
// GOGC in the environment, see runtime, is left to whoever set it.
func limitGarbage() []byte {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	debug.SetGCPercent(gcPercent)
	return make([]byte, gcReserve)
}
