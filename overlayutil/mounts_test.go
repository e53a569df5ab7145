// SPDX-License-Identifier: Apache-2.0

package overlayutil

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
)

const testMap = "0:100000:65536"

func TestMounts(t *testing.T) {
	bind := func(source string, options ...string) []mount.Mount {
		return []mount.Mount{{Type: "bind", Source: source, Options: options}}
	}
	overlay := func(options ...string) []mount.Mount {
		return []mount.Mount{{Type: "overlay", Source: "overlay", Options: options}}
	}
	for _, tc := range []struct {
		name string
		plan Plan
		want []mount.Mount
	}{
		{"nothing", Plan{Empty: "/r/e"}, bind("/r/e", "ro", "rbind")},
		{"nothing, forced", Plan{Empty: "/r/e", ForceOverlay: true}, bind("/r/e", "ro", "rbind")},
		{"only an upper", Plan{Empty: "/r/e", Upper: "/r/u", Work: "/r/w", Options: []string{"index=off"}}, bind("/r/u", "rw", "rbind")},
		{"only an upper, mapped", Plan{Empty: "/r/e", Upper: "/r/u", Work: "/r/w", UIDMap: testMap, GIDMap: testMap},
			bind("/r/u", "uidmap="+testMap, "gidmap="+testMap, "rw", "rbind")},
		{"bind of any path", Plan{Empty: "/r/e", Upper: `/r:,\/u`, Work: "/r/w"}, bind(`/r:,\/u`, "rw", "rbind")},
		{"forced", Plan{Empty: "/r/e", Upper: "/r/u", Work: "/r/w", ForceOverlay: true, Options: []string{"index=off"}},
			overlay("workdir=/r/w", "upperdir=/r/u", "lowerdir=/r/e", "index=off")},
		{"view of one layer", Plan{Empty: "/r/e", Lowers: []string{"/r/1"}}, overlay("lowerdir=/r/1:/r/e")},
		{"view of two layers", Plan{Empty: "/r/e", Lowers: []string{"/r/2", "/r/1"}}, overlay("lowerdir=/r/2:/r/1")},
		{"one layer", Plan{Empty: "/r/e", Lowers: []string{"/r/1"}, Upper: "/r/u", Work: "/r/w"},
			overlay("workdir=/r/w", "upperdir=/r/u", "lowerdir=/r/1")},
		{"mapped", Plan{Empty: "/r/e", Lowers: []string{"/r/1"}, Upper: "/r/u", Work: "/r/w", UIDMap: testMap, GIDMap: testMap, Options: []string{"userxattr"}},
			overlay("uidmap="+testMap, "gidmap="+testMap, "workdir=/r/w", "upperdir=/r/u", "lowerdir=/r/1", "userxattr")},
		{"escaped", Plan{Empty: "/r/e", Lowers: []string{`/a:b,c\d`}, Upper: `/a:b,c\u`, Work: `/a:b,c\w`},
			overlay(`workdir=/a:b\,c\\w`, `upperdir=/a:b\,c\\u`, `lowerdir=/a\:b\,c\\d`)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.plan.Mounts()
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Fatalf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
}

func manyLowers(format string, n int) []string {
	lowers := make([]string, n)
	for i := range lowers {
		lowers[i] = fmt.Sprintf(format, i)
	}
	return lowers
}

func TestMountsRefuses(t *testing.T) {
	long := strings.Repeat("x", 250)
	for _, tc := range []struct {
		name  string
		plan  Plan
		class error
		word  string
	}{
		{"upper without work", Plan{Empty: "/e", Upper: "/u"}, errdefs.ErrInvalidArgument, "work"},
		{"no empty directory", Plan{Lowers: []string{"/r/1"}}, errdefs.ErrInvalidArgument, "absolute"},
		{"relative", Plan{Empty: "/e", Lowers: []string{"r/1"}}, errdefs.ErrInvalidArgument, "r/1"},
		{"not clean", Plan{Empty: "/e", Lowers: []string{"/r/../1"}}, errdefs.ErrInvalidArgument, "/r/../1"},
		{"NUL", Plan{Empty: "/e", Lowers: []string{"/r/\x00"}}, errdefs.ErrInvalidArgument, "absolute"},
		{"option lowerdir", Plan{Empty: "/e", Options: []string{"index=off,lowerdir=/etc"}}, errdefs.ErrInvalidArgument, "lowerdir=/etc"},
		{"option datadir", Plan{Empty: "/e", Options: []string{"datadir+=/etc"}}, errdefs.ErrInvalidArgument, "datadir"},
		{"one mapping", Plan{Empty: "/e", UIDMap: testMap}, errdefs.ErrInvalidArgument, "gid"},
		{"injected mapping", Plan{Empty: "/e", UIDMap: testMap + ",lowerdir=/etc", GIDMap: testMap}, errdefs.ErrInvalidArgument, "lowerdir=/etc"},
		{"501 lowers", Plan{Empty: "/e", Lowers: manyLowers("/l/%d", 501)}, errdefs.ErrFailedPrecondition, "squash"},
		{"long, in many directories", Plan{Empty: "/e", Lowers: manyLowers("/l/%d"+long, 100)}, errdefs.ErrFailedPrecondition, "shorter root"},
		{"long option", Plan{Empty: "/e", Lowers: manyLowers("/l/%d", 2), Options: []string{strings.Repeat("x", 4083)}}, errdefs.ErrFailedPrecondition, "bytes"},
		{"escape when compacted", Plan{Empty: "/e", Lowers: manyLowers("/a:b"+long+"/%d", 20)}, errdefs.ErrFailedPrecondition, "/a:b"},
		{"escape when mapped", Plan{Empty: "/e", Lowers: []string{"/r/a,b"}, Upper: "/u", Work: "/w", UIDMap: testMap, GIDMap: testMap}, errdefs.ErrFailedPrecondition, "/r/a,b"},
		{"mapped without a common directory", Plan{Empty: "/e", Lowers: []string{"/a", "/b"}, UIDMap: testMap, GIDMap: testMap}, errdefs.ErrFailedPrecondition, "common"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.plan.Mounts()
			if err == nil {
				t.Fatalf("accepted: %q", got)
			}
			if !isClass(err, tc.class) || !strings.Contains(err.Error(), tc.word) {
				t.Fatalf("want %v with %q, got: %v", tc.class, tc.word, err)
			}
		})
	}
}

func TestFlagsAreNoData(t *testing.T) {
	plan := Plan{Empty: "/e", Lowers: manyLowers("/l/%d", 2), Options: []string{strings.Repeat("x", 4095-len("lowerdir=0:1,"))}}
	if _, err := plan.Mounts(); err != nil {
		t.Fatalf("exactly the page: %v", err)
	}
	plan.Options = append(plan.Options, "ro", "nosuid")
	if _, err := plan.Mounts(); err != nil {
		t.Fatalf("flags: %v", err)
	}
	plan.Options = append(plan.Options, "volatile")
	if _, err := plan.Mounts(); !errdefs.IsFailedPrecondition(err) {
		t.Fatalf("data: %v", err)
	}
}
