// SPDX-License-Identifier: Apache-2.0

package diff_test

import (
	"testing"

	"github.com/strata-snapshotter/strata/diff"
)

func TestVersionKnowsStaged(t *testing.T) {
	for version, want := range map[string]bool{
		"v2.4.2": true, "2.4.0-rc.1": true, "v2.5.0-12-gabcdef.m": true, "2.4.2~ds1": true, "3.0.0": true, "2.4.2+unknown": true,
		"v2.3.4": false, "2.2.0": false, "1.7.35": false, "v1.7.35+unknown": false, "": false, "unknown": false, "v": false, "2": false,
	} {
		if got := diff.VersionKnowsStaged(version); got != want {
			t.Errorf("%q: %v", version, got)
		}
	}
}
