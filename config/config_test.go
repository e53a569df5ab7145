// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"

	"github.com/strata-snapshotter/strata/config"
)

func TestDefaultIsValid(t *testing.T) {
	if err := config.Default().Validate(); err != nil {
		t.Fatal(err)
	}
}

func TestGoldenFileIsDefault(t *testing.T) {
	want, err := config.Default().TOML()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("config.toml")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("config/config.toml is stale, write it anew with\n"+
			"go run ./cmd/containerd-strata-grpc config default > config/config.toml\ngot:\n%s\nwant:\n%s", got, want)
	}
	cfg, err := config.Load("config.toml")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(cfg, config.Default()) {
		t.Fatalf("golden file is read as %+v", cfg)
	}
}

// TestEveryKeyHasAComment keeps a new key from being added without one.
func TestEveryKeyHasAComment(t *testing.T) {
	data, err := config.Default().TOML()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(data), "\n")
	for i, line := range lines {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if i == 0 || !strings.HasPrefix(lines[i-1], "#") {
			t.Errorf("line %d has no comment before it: %s", i+1, line)
		}
	}
}

func TestParseKeepsDefaultsForAbsentKeys(t *testing.T) {
	cfg, err := config.Parse([]byte("log_level = 'debug'\n[snapshotter]\nslow_chown = true\n"), "x.toml")
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.LogLevel = "debug"
	want.Snapshotter.SlowChown = true
	if !reflect.DeepEqual(cfg, want) {
		t.Fatalf("got %+v\nwant %+v", cfg, want)
	}
}

func TestParseRefuses(t *testing.T) {
	tests := map[string]struct {
		toml string
		want []string
	}{
		"unknown key":            {"version = 1\nsync_remov = true\n", []string{"x.toml:2", `"sync_remov"`}},
		"unknown key in a table": {"[snapshotter]\nsync_remov = true\n", []string{"x.toml:2", `"snapshotter.sync_remov"`}},
		"two unknown keys":       {"a = 1\nb = 2\n", []string{`"a"`, "x.toml:2", `"b"`}},
		"unknown table":          {"\n[snapshoter]\nsync_remove = true\n", []string{"x.toml:2", `"snapshoter"`}},
		"wrong type":             {"root = 7\n", []string{"x.toml:1", "root"}},
		"broken syntax":          {"root = \n", []string{"x.toml:1"}},
		"duplicate key":          {"root = '/a'\nroot = '/b'\n", []string{"x.toml:2", "root"}},
		"other version":          {"version = 2\n", []string{"version is 2"}},
		"relative root":          {"root = 'a'\n", []string{"root", "absolute"}},
		"unknown limit":          {"[limits]\ninodes = 1\n", []string{"x.toml:2", `"limits.inodes"`}},
		"limit with a unit":      {"[limits]\nbytes = '64GiB'\n", []string{"x.toml:2", "limits.bytes"}},
		"limit too large":        {"[limits]\nbytes = 9223372036854775808\n", []string{"x.toml:2"}},
		"wrong value":            {"[snapshotter]\ndurability = 'maybe'\n", []string{"snapshotter.durability", "commit, none"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := config.Parse([]byte(test.toml), "x.toml")
			checkInvalid(t, err, test.want)
		})
	}
}

func TestValidateRefuses(t *testing.T) {
	long := "/" + strings.Repeat("s", config.MaxSocketPath)
	tests := map[string]struct {
		change func(*config.Config)
		want   []string
	}{
		"root /":              {func(c *config.Config) { c.Root = "/" }, []string{"root"}},
		"empty root":          {func(c *config.Config) { c.Root = "" }, []string{"root", "absolute"}},
		"unclean root":        {func(c *config.Config) { c.Root = "/a/../b/" }, []string{"root", `"/b"`}},
		"root not UTF-8":      {func(c *config.Config) { c.Root = "/a\xff" }, []string{"root", "UTF-8"}},
		"root with a newline": {func(c *config.Config) { c.Root = "/a\nb" }, []string{"root", "control"}},
		"long address":        {func(c *config.Config) { c.Address = long }, []string{"address", "108", "107"}},
		"relative address":    {func(c *config.Config) { c.Address = "s.sock" }, []string{"address", "absolute"}},
		"same addresses":      {func(c *config.Config) { c.Address = c.ContainerdAddress }, []string{"containerd_address"}},
		"relative content":    {func(c *config.Config) { c.ContentRoot = "content" }, []string{"content_root", "absolute"}},
		"log level":           {func(c *config.Config) { c.LogLevel = "loud" }, []string{"log_level", "debug"}},
		"log format":          {func(c *config.Config) { c.LogFormat = "xml" }, []string{"log_format", "json"}},
		"group":               {func(c *config.Config) { c.Group = "a\x00" }, []string{"group"}},
		"idmapped mounts":     {func(c *config.Config) { c.Snapshotter.IDMappedMounts = "on" }, []string{"idmapped_mounts", "auto, off"}},
		"scrub interval":      {func(c *config.Config) { c.Scrub.Interval = "weekly" }, []string{"scrub.interval", "weekly"}},
		"short interval":      {func(c *config.Config) { c.Scrub.Interval = "59s" }, []string{"scrub.interval", "1m0s"}},
		"negative interval":   {func(c *config.Config) { c.Scrub.Interval = "-1h" }, []string{"scrub.interval"}},
		"negative rate":       {func(c *config.Config) { c.Scrub.Rate = -1 }, []string{"scrub.rate"}},
		"negative bytes":      {func(c *config.Config) { c.Limits.Bytes = -1 }, []string{"limits.bytes", "between 0 and"}},
		"negative entries":    {func(c *config.Config) { c.Limits.Entries = -1 }, []string{"limits.entries"}},
		"negative depth":      {func(c *config.Config) { c.Limits.Depth = -1 }, []string{"limits.depth"}},
		"huge depth":          {func(c *config.Config) { c.Limits.Depth = 1 << 40 }, []string{"limits.depth"}},
		"negative ratio":      {func(c *config.Config) { c.Limits.Ratio = -1 }, []string{"limits.ratio"}},
		"no length of paths":  {func(c *config.Config) { c.Limits.PathBytes = 0 }, []string{"limits.path_bytes", "1 and 1048576"}},
		"long paths":          {func(c *config.Config) { c.Limits.PathBytes = 1<<20 + 1 }, []string{"limits.path_bytes"}},
		"no length of names":  {func(c *config.Config) { c.Limits.NameBytes = 0 }, []string{"limits.name_bytes"}},
		"long names":          {func(c *config.Config) { c.Limits.NameBytes = 256 }, []string{"limits.name_bytes", "1 and 255"}},
		"no attributes":       {func(c *config.Config) { c.Limits.XattrBytes = 0 }, []string{"limits.xattr_bytes"}},
		"large attributes":    {func(c *config.Config) { c.Limits.XattrBytes = 1 << 40 }, []string{"limits.xattr_bytes"}},
		"several at once": {func(c *config.Config) { c.Root = "r"; c.LogLevel = "loud" },
			[]string{"root", "log_level"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := config.Default()
			test.change(&cfg)
			checkInvalid(t, cfg.Validate(), test.want)
		})
	}
}

// TestNoLimit: what can be left away is 0 then, and the rest stays as it was.
func TestNoLimit(t *testing.T) {
	cfg, err := config.Parse([]byte("[limits]\nbytes = 0\nentries = 0\ndepth = 0\nratio = 0\npath_bytes = 4_096\n"), "x.toml")
	if err != nil {
		t.Fatal(err)
	}
	want := config.Limits{PathBytes: 4096, NameBytes: 255, XattrBytes: 1 << 20}
	if cfg.Limits != want {
		t.Fatalf("got %+v\nwant %+v", cfg.Limits, want)
	}
}

func TestMountOptions(t *testing.T) {
	tests := map[string]bool{
		"volatile": true, "xino=off": true, "context=system_u:object_r:x_t:s0": true, "verity=on": true,
		"": false, "=x": false, "lowerdir=/etc": false, "lowerdir+=/etc": false, "datadir+=/etc": false,
		"upperdir=/etc": false, "workdir=/etc": false, "uidmap=0:0:1": false, "gidmap=0:0:1": false,
		"volatile,lowerdir=/etc": false, "a\nb": false, " lowerdir=/etc": false, "x=\xff": false,
	}
	for option, ok := range tests {
		s := config.Default().Snapshotter
		s.MountOptions = []string{option}
		err := s.Validate()
		if ok && err != nil {
			t.Errorf("%q is refused: %v", option, err)
		}
		if !ok {
			checkInvalid(t, err, []string{"mount_options[0]"})
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if _, err := config.Load(filepath.Join(dir, "none.toml")); !errdefs.IsNotFound(err) {
		t.Errorf("a missing file gives %v", err)
	}
	big := filepath.Join(dir, "big.toml")
	if err := os.WriteFile(big, bytes.Repeat([]byte("#\n"), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := config.Load(big)
	checkInvalid(t, err, []string{big, "larger"})
	if _, err := config.Load(dir); err == nil {
		t.Error("a directory is read as a file")
	}
}

func TestTOMLRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := config.Default()
		cfg.Root = "/" + rapid.StringMatching(`[ -~äß語]{1,40}`).Draw(t, "root")
		cfg.Group = rapid.String().Draw(t, "group")
		cfg.Limits.Bytes = rapid.Int64().Draw(t, "bytes")
		cfg.Snapshotter.SyncRemove = rapid.Bool().Draw(t, "sync")
		cfg.Snapshotter.MountOptions = rapid.SliceOf(rapid.StringMatching(`[a-z_]{1,8}(=[ -~]{0,9})?`)).Draw(t, "options")
		if cfg.Validate() != nil {
			return
		}
		checkRoundTrip(t, cfg)
	})
}

func FuzzParse(f *testing.F) {
	golden, err := config.Default().TOML()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add([]byte("[snapshotter]\nmount_options = ['volatile', \"a='\\u00e4\"]\n"))
	f.Add([]byte("unknown.key = {a = [1, 2]}\n[[snapshotter]]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := config.Parse(data, "fuzz.toml")
		if err != nil {
			checkInvalid(t, err, []string{"fuzz.toml"})
			return
		}
		checkRoundTrip(t, cfg)
	})
}

type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

func checkRoundTrip(t failer, cfg config.Config) {
	t.Helper()
	data, err := cfg.TOML()
	if err != nil {
		t.Fatalf("write %+v: %v", cfg, err)
	}
	again, err := config.Parse(data, "again.toml")
	if err != nil {
		t.Fatalf("read back: %v\n%s", err, data)
	}
	if !reflect.DeepEqual(again, cfg) {
		t.Fatalf("wrote %+v\nread %+v\n%s", cfg, again, data)
	}
}

func checkInvalid(t failer, err error, want []string) {
	t.Helper()
	if !errdefs.IsInvalidArgument(err) {
		t.Fatalf("want InvalidArgument, got %v", err)
	}
	for _, s := range want {
		if !strings.Contains(err.Error(), s) {
			t.Fatalf("%q is not in the message: %v", s, err)
		}
	}
}
