// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// TestOverrideRoundTrip: what is written of an entry is read as that.
func TestOverrideRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := &entry{
			typ:  rapid.SampledFrom([]byte{typeRegular, typeDir, typeFifo, typeChar, typeBlock}).Draw(t, "type"),
			mode: rapid.Uint32Range(0, 0o7777).Draw(t, "mode"),
			uid:  rapid.Uint32().Draw(t, "uid"), gid: rapid.Uint32().Draw(t, "gid"),
		}
		if e.isDevice() {
			e.major, e.minor = rapid.Uint32Range(1, 4095).Draw(t, "major"), rapid.Uint32Range(0, 1<<20-1).Draw(t, "minor")
		}
		o, err := parseOverride(string(e.overrideValue()))
		if err != nil {
			t.Fatal(err)
		}
		st := unix.Stat_t{Mode: unix.S_IFREG | 0o600}
		if e.typ == typeDir {
			st.Mode = unix.S_IFDIR | 0o700
		}
		o.apply(&st)
		got := entry{
			typ: typeOf(&st), mode: st.Mode & 0o7777, uid: st.Uid, gid: st.Gid,
			major: unix.Major(st.Rdev), minor: unix.Minor(st.Rdev),
		}
		if got.typ != e.typ || got.mode != e.mode || got.uid != e.uid || got.gid != e.gid || got.major != e.major || got.minor != e.minor {
			t.Fatalf("%s is read as %+v", e.overrideValue(), got)
		}
	})
}

// FuzzOverride: a value is refused as what it is, or says nothing that a file can't be.
func FuzzOverride(f *testing.F) {
	for _, seed := range []string{"0:0:0755:dir", "1:2:100644", "0:0:0660:block-8-300", "::", "0:0:0644:char-0-0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		o, err := parseOverride(value)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%q: %v", value, err)
			}
			return
		}
		st := unix.Stat_t{Mode: unix.S_IFREG}
		o.apply(&st)
		if o.mode > 0o7777 || st.Mode&0o7777 != o.mode || (st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0) {
			t.Errorf("%q is %+v, %+v", value, o, st)
		}
	})
}
