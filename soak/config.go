// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// containerdConfig keeps everything of containerd's below DIR: the host may have its own.
const containerdConfig = `version = 3
root = "DIR/containerd"
state = "DIR/state"
disabled_plugins = ["io.containerd.nri.v1.nri",
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.podsandbox.controller.v1.podsandbox"]
[grpc]
  address = "DIR/c.sock"
[plugins.'io.containerd.internal.v1.opt']
  path = "DIR/opt"
[proxy_plugins.strata]
  type = "snapshot"
  address = "DIR/strata.sock"
  capabilities = ["rebase", "remap-ids"]
  [proxy_plugins.strata.exports]
    enable_remote_snapshot_annotations = "true"
    root = "DIR/strata"
[proxy_plugins.strata-diff]
  type = "diff"
  address = "DIR/strata.sock"
[plugins.'io.containerd.service.v1.diff-service']
  default = ["strata-diff", "walking"]
[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
  platform = "PLATFORM"
  snapshotter = "strata"
  differ = "strata-diff"
[plugins.'io.containerd.transfer.v1.local']
  max_concurrent_downloads = 6
  max_concurrent_unpacks = 4
`

// strataConfig leaves everything as it is by default.
const strataConfig = `version = 1
root = "DIR/strata"
address = "DIR/strata.sock"
containerd_address = "DIR/c.sock"
log_level = "debug"
`

func writeConfigs(dir string) error {
	replacer := strings.NewReplacer("DIR", dir, "PLATFORM", platform)
	for name, text := range map[string]string{"containerd.toml": containerdConfig, "strata.toml": strataConfig} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(replacer.Replace(text)), 0o600); err != nil {
			return err
		}
	}
	return nil
}

const platform = "linux/" + runtime.GOARCH
