// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"text/template"
)

// containerdConfig has nothing outside of the side's directory, and of containerd's
// services only those that unpack, and pull if that is measured.
var containerdConfig = template.Must(template.New("containerd.toml").Parse(`version = 3
root = "{{.Dir}}/containerd"
state = "{{.Dir}}/state"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images",
  "io.containerd.cri.v1.runtime", "io.containerd.podsandbox.controller.v1.podsandbox"
  {{- if not .Unpacks}}, "io.containerd.transfer.v1.local"{{end}}]
[grpc]
  address = "{{.Dir}}/c.sock"
[plugins.'io.containerd.internal.v1.opt']
  path = "{{.Dir}}/opt"
[plugins.'io.containerd.metadata.v1.bolt']
  no_sync = {{.NoSync}}
[plugins.'io.containerd.service.v1.diff-service']
  default = ["{{.Differ}}"]
{{if .Unpacks}}
[plugins.'io.containerd.transfer.v1.local']
  max_concurrent_unpacks = {{.Unpacks}}
[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
  platform = "{{.Platform}}"
  snapshotter = "{{.Snapshotter}}"
  differ = "{{.Differ}}"
{{end}}
{{if .Proxy}}
[proxy_plugins.strata]
  type = "snapshot"
  address = "{{.Dir}}/strata.sock"
  capabilities = ["rebase"]
[proxy_plugins.strata-diff]
  type = "diff"
  address = "{{.Dir}}/strata.sock"
{{end}}`))

// writeConfigs is for one durability of both sides. Without any, containerd does not sync
// its own metadata either; its overlayfs snapshotter always does.
func (s *side) writeConfigs(durability string) error {
	data := struct {
		Dir, Differ, Snapshotter, Platform string
		Proxy, NoSync                      bool
		Unpacks                            int
	}{s.fs.dir, s.differ, s.snapshotter, "linux/" + runtime.GOARCH, s.strata != "", durability == "none", s.unpacks}
	var out strings.Builder
	if err := containerdConfig.Execute(&out, data); err != nil {
		return err
	}
	if err := os.WriteFile(s.file("containerd.toml"), []byte(out.String()), 0o600); err != nil {
		return err
	}
	text := "version = 1\n[snapshotter]\ndurability = '" + durability + "'\n" + s.extra
	return os.WriteFile(s.file("strata.toml"), []byte(text), 0o600)
}

// file is a path in the side's directory.
func (s *side) file(name string) string { return filepath.Join(s.fs.dir, name) }
