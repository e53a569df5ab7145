// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"text/template"
)

// settings is what a test chooses for its containerd; the rest is derived.
type settings struct {
	containerd string // program name in env.bin, or an absolute path
	shims      string // directory of its shim; default env.bin
	plugin     bool   // Strata is compiled into containerd
	differ     string // who applies and compares layers; default: Strata, "walking": containerd
	cri        *criSettings
	unpacks    int    // concurrent unpacks; 0 leaves containerd's default
	version    int    // format of containerd's configuration
	daemon     string // lines for Strata's own configuration

	// Filled in by the harness.
	dir, snapshotter, platform, runc string
}

type criSettings struct {
	pause   string // the sandbox image
	cniBin  string
	cniConf string
}

// The accessors below are the template's view; templates see no unexported fields.
func (s settings) data() map[string]any {
	return map[string]any{
		"Dir": s.dir, "Snapshotter": s.snapshotter, "Platform": s.platform, "Runc": s.runc,
		"Proxy": s.snapshotter == "strata" && !s.plugin, "Unpacks": s.unpacks, "CRI": s.cri != nil,
		"Differ": s.differ,
	}
}

func (s settings) criData() map[string]any {
	d := s.data()
	if s.cri != nil {
		d["Pause"], d["CNIBin"], d["CNIConf"] = s.cri.pause, s.cri.cniBin, s.cri.cniConf
	}
	return d
}

// version3 is for containerd 2. Everything that containerd would put outside of its
// root and state is moved or turned off: these tests share a host with others.
const version3 = `version = 3
root = "{{.Dir}}/containerd"
state = "{{.Dir}}/state"
disabled_plugins = ["io.containerd.nri.v1.nri"{{if not .CRI}},
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.podsandbox.controller.v1.podsandbox"{{end}}]
[grpc]
  address = "{{.Dir}}/c.sock"
[plugins.'io.containerd.internal.v1.opt']
  path = "{{.Dir}}/opt"
{{if .Proxy}}
[proxy_plugins.strata]
  type = "snapshot"
  address = "{{.Dir}}/strata.sock"
  capabilities = ["rebase", "remap-ids"]
  [proxy_plugins.strata.exports]
    enable_remote_snapshot_annotations = "true"
    root = "{{.Dir}}/strata"
[proxy_plugins.strata-diff]
  type = "diff"
  address = "{{.Dir}}/strata.sock"
{{end}}
[plugins.'io.containerd.service.v1.diff-service']
  default = ["{{.Differ}}"{{if ne .Differ "walking"}}, "walking"{{end}}]
[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
  platform = "{{.Platform}}"
  snapshotter = "overlayfs"
  differ = "walking"
[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
  platform = "{{.Platform}}"
  snapshotter = "native"
  differ = "walking"
{{if ne .Snapshotter "overlayfs"}}
[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
  platform = "{{.Platform}}"
  snapshotter = "{{.Snapshotter}}"
  differ = "{{.Differ}}"
{{end}}
[plugins.'io.containerd.transfer.v1.local']
  # More than an image has layers: tests keep some of them back.
  max_concurrent_downloads = 10
{{if .Unpacks}}
  max_concurrent_unpacks = {{.Unpacks}}
{{end}}
{{if .CRI}}
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "{{.Snapshotter}}"
  stats_collect_period = 1
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{{.Pause}}"
[plugins.'io.containerd.cri.v1.runtime']
  # Without CAP_SYS_RESOURCE a score below the daemon's own cannot be set.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{{.CNIBin}}"]
    conf_dir = "{{.CNIConf}}"
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = "{{.Runc}}"
        Root = "{{.Dir}}/runc"
{{end}}
`

// version2 is for containerd 1.7, which knows nothing of rebase.
const version2 = `version = 2
root = "{{.Dir}}/containerd"
state = "{{.Dir}}/state"
disabled_plugins = ["io.containerd.nri.v1.nri"{{if not .CRI}}, "io.containerd.grpc.v1.cri"{{end}}]
[grpc]
  address = "{{.Dir}}/c.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{{.Dir}}/opt"
{{if .Proxy}}
[proxy_plugins.strata]
  type = "snapshot"
  address = "{{.Dir}}/strata.sock"
[proxy_plugins.strata-diff]
  type = "diff"
  address = "{{.Dir}}/strata.sock"
[plugins."io.containerd.service.v1.diff-service"]
  default = ["{{.Differ}}"{{if ne .Differ "walking"}}, "walking"{{end}}]
{{end}}
{{if .CRI}}
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  stats_collect_period = 1
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{{.CNIBin}}"
    conf_dir = "{{.CNIConf}}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{{.Snapshotter}}"
    disable_snapshot_annotations = false
{{end}}
`

func (s *settings) derive(dir string) {
	s.dir, s.snapshotter, s.platform = dir, env.snapshotter, "linux/"+runtime.GOARCH
	if s.version == 0 {
		s.version = 3
	}
	if s.differ == "" {
		s.differ = s.ownDiffer()
	}
	if s.shims == "" {
		s.shims = env.bin
	}
	if s.containerd == "" {
		s.containerd = "containerd"
	}
	if !filepath.IsAbs(s.containerd) {
		s.containerd = filepath.Join(env.bin, s.containerd)
	}
	s.runc = findRunc()
}

// ownDiffer is the name that containerd has for Strata's differ.
func (s *settings) ownDiffer() string {
	switch {
	case s.snapshotter != "strata":
		return "walking"
	case s.plugin:
		return "strata"
	default:
		return "strata-diff"
	}
}

// findRunc prefers the runc that hack/deps.sh built: distributions' older ones cannot
// map the mounts of a container in a user namespace.
func findRunc() string {
	for _, dir := range append([]string{env.bin}, append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/local/sbin")...) {
		path := filepath.Join(dir, "runc")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	return "runc"
}

func (s settings) write(t *testing.T) (containerdConfig, strataConfig string) {
	t.Helper()
	text := version3
	if s.version == 2 {
		text = version2
	}
	var out strings.Builder
	if err := template.Must(template.New("config").Option("missingkey=error").Parse(text)).Execute(&out, s.criData()); err != nil {
		t.Fatal(err)
	}
	containerdConfig = writeFile(t, filepath.Join(s.dir, "containerd.toml"), out.String())
	strataConfig = writeFile(t, filepath.Join(s.dir, "strata.toml"), s.daemon)
	return containerdConfig, strataConfig
}

func writeFile(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
