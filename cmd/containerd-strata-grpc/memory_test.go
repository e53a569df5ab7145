// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime/debug"
	"testing"
)

// TestLimitGarbage only looks at who decides; what it is good for is held by
// TestMemoryAndDescriptors of package integration.
func TestLimitGarbage(t *testing.T) {
	const before = 77
	normal := debug.SetGCPercent(before)
	defer debug.SetGCPercent(normal)
	t.Setenv("GOGC", "100")
	if reserve := limitGarbage(); reserve != nil {
		t.Errorf("a reserve of %d bytes although GOGC is set", len(reserve))
	}
	if got := debug.SetGCPercent(before); got != before {
		t.Errorf("the percentage became %d although GOGC is set", got)
	}
	t.Setenv("GOGC", "")
	if reserve := limitGarbage(); len(reserve) != gcReserve {
		t.Errorf("a reserve of %d bytes", len(reserve))
	}
	if got := debug.SetGCPercent(before); got != gcPercent {
		t.Errorf("the percentage became %d", got)
	}
}
