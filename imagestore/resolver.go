// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// NewResolver is a client of registries. hostsDirs are directories with hosts.toml files,
// as containerd has them in /etc/containerd/certs.d; the first that knows a registry says
// how to reach it. A registry on loopback that no file is about is asked over HTTPS, and
// over plain HTTP if it does not speak that. Credentials are docker's: config.json, its
// credential helpers, and podman's auth.json.
func NewResolver(ctx context.Context, hostsDirs []string) remotes.Resolver {
	return docker.NewResolver(docker.ResolverOptions{
		Hosts: config.ConfigureHosts(ctx, config.HostOptions{
			HostDir:     hostDir(hostsDirs),
			Credentials: credentials,
		}),
	})
}

// hostDir finds the directory of a registry's hosts.toml.
func hostDir(dirs []string) func(string) (string, error) {
	return func(host string) (string, error) {
		for _, dir := range dirs {
			found, err := config.HostDirFromRoot(dir)(host)
			if err == nil {
				return found, nil
			}
			if !errdefs.IsNotFound(err) {
				return "", fmt.Errorf("directory %s for registry %s: %w", dir, host, err)
			}
		}
		return "", errdefs.ErrNotFound
	}
}

// credentials looks a host up where docker login puts it. A name without a user is a
// token, as containerd has it.
func credentials(host string) (user, secret string, err error) {
	if host == "registry-1.docker.io" {
		host = name.DefaultRegistry // under which docker keeps its credentials
	}
	registry, err := name.NewRegistry(host)
	if err != nil {
		return "", "", nil //nolint:nilerr // a host that nobody can have logged in to
	}
	found, err := authn.DefaultKeychain.Resolve(registry)
	if err != nil {
		return "", "", fmt.Errorf("credentials for registry %s: %w", host, err)
	}
	auth, err := found.Authorization()
	if err != nil {
		return "", "", fmt.Errorf("credentials for registry %s: %w", host, err)
	}
	if auth.IdentityToken != "" {
		return "", auth.IdentityToken, nil
	}
	return auth.Username, auth.Password, nil
}
