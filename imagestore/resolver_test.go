// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/internal/testutil/testregistry"
)

// dockerConfig makes text the configuration that docker login writes.
func dockerConfig(t *testing.T, text string) {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600))
	t.Setenv("DOCKER_CONFIG", dir)
}

func TestCredentials(t *testing.T) {
	r := testregistry.Start(t)
	ref := r.Push(t, "private:1", build(t, heavy("a", 1000)))
	r.Fail(testregistry.Faults{User: "me", Password: "secret"})
	s := newStore(t)
	auth := base64.StdEncoding.EncodeToString([]byte("me:secret"))
	wrong := base64.StdEncoding.EncodeToString([]byte("me:wrong"))

	dockerConfig(t, fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, r.Host, wrong))
	if _, err := tryPull(s, PullOptions{Ref: ref}); !errdefs.IsPermissionDenied(err) {
		t.Errorf("wrong password: %v, want ErrPermissionDenied", err)
	}
	dockerConfig(t, fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, r.Host, auth))
	pull(t, s, PullOptions{Ref: ref, Policy: PolicyAlways})

	helpers := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\ncat >/dev/null\necho '{\"ServerURL\":%q,\"Username\":\"me\",\"Secret\":\"secret\"}'\n", r.Host)
	must(t, os.WriteFile(filepath.Join(helpers, "docker-credential-strata-test"), []byte(script), 0o755)) //nolint:gosec // it is run
	t.Setenv("PATH", helpers+":"+os.Getenv("PATH"))
	dockerConfig(t, fmt.Sprintf(`{"credHelpers":{%q:"strata-test"}}`, r.Host))
	pull(t, s, PullOptions{Ref: ref, Policy: PolicyAlways})
}

// hosts.toml sends a registry's requests elsewhere; the first directory that knows it
// counts.
func TestHostsDirs(t *testing.T) {
	r := testregistry.Start(t)
	img := build(t, heavy("a", 1000))
	r.Push(t, "mirrored/a:1", img)
	first, second := t.TempDir(), t.TempDir()
	hosts := func(dir, address string) {
		dir = filepath.Join(dir, "registry.invalid")
		must(t, os.MkdirAll(dir, 0o755))
		must(t, os.WriteFile(filepath.Join(dir, "hosts.toml"), fmt.Appendf(nil, "server = %q\n", address), 0o600))
	}
	hosts(second, "http://127.0.0.1:1")
	s := newStore(t)
	ctx := context.Background()
	o := PullOptions{Ref: "registry.invalid/mirrored/a:1", Resolver: NewResolver(ctx, []string{first, second})}
	if _, err := tryPull(s, o); !errdefs.IsUnavailable(err) {
		t.Errorf("a host that is not there: %v, want ErrUnavailable", err)
	}
	hosts(first, "http://"+r.Host)
	image := pull(t, s, o)
	if image.Name != o.Ref || len(r.Blobs()) != 2 {
		t.Errorf("pulled %+v", image)
	}
}
