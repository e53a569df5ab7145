// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/rootfs"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

const (
	change = `echo new >/data/new; rm /data/added; rm -r /data/replaced; mkdir /data/replaced; echo 2 >/data/replaced/again
chown 7:8 /data/keep; chmod 4711 /srv/owned; ln -s keep /data/link`
	lookAtChange = `cat /data/new /data/replaced/again /data/link; ls /data /data/replaced; stat -c "%n %u:%g %a" /data/keep /srv/owned`
)

// Pull, run, commit, run the commit: both directions of the differ, in every way that
// it reaches containerd.
func TestCommit(t *testing.T) {
	needStrata(t)
	for name, s := range map[string]settings{
		"proxy": {},
		// containerd's content directory is not where the daemon looks.
		"content over the socket": {daemon: "content_root = '/nowhere'\n"},
		"plugin":                  {plugin: true},
		"containerd's differ":     {differ: "walking"},
	} {
		t.Run(name, func(t *testing.T) {
			if s.plugin {
				s.containerd = buildPlugin(t)
			}
			n := newNode(t, s)
			ref := startRegistry(t) + "/sample:1"
			push(t, ref, sample(t))
			base := n.pull(n.ctx(), ref)
			c := n.start(base, spec{id: "origin", args: idle})
			c.exec(change)
			want := c.exec(lookAtChange)
			committed := n.commit(n.ctx(), c, base, "strata.test/commit:1")
			c.remove()
			again := n.start(committed, spec{id: "commit", args: idle})
			expect(t, "in the committed image", again.exec(lookAtChange), want)
			expect(t, "what was not changed", again.exec("cat /etc/greeting"), n.greeting(base))
			again.remove()
			n.checkDiffer(s)
		})
	}
}

// checkDiffer looks into the daemon's log for who did the work, and how.
func (n *node) checkDiffer(s settings) {
	n.t.Helper()
	if s.plugin {
		return
	}
	data, err := os.ReadFile(n.strata.log)
	if err != nil {
		n.t.Fatal(err)
	}
	for text, want := range map[string]bool{
		"layer applied": s.differ == "",
		"the blob is read through containerd's API": s.differ == "" && s.daemon != "",
		"both mounts are walked to compare them":    false,
	} {
		if strings.Contains(string(data), text) != want {
			n.t.Errorf("the daemon's log has %q: %v", text, !want)
		}
	}
}

// greeting is a file of the image as a container of its own sees it.
func (n *node) greeting(image containerd.Image) string {
	n.t.Helper()
	c := n.start(image, spec{id: "greeting", args: []string{"/bin/cat", "/etc/greeting"}})
	c.wait()
	c.remove()
	return c.out.String()
}

func buildPlugin(t *testing.T) string {
	t.Helper()
	if env.missing != nil {
		unable(t, env.missing.Error())
	}
	program := filepath.Join(t.TempDir(), "containerd-with-strata")
	if err := goBuild(program, "./cmd/containerd-with-strata", "-tags", "no_btrfs"); err != nil {
		t.Fatalf("building: %v", err)
	}
	return program
}

// commit makes an image of a container's changes, as nerdctl does.
func (n *node) commit(ctx context.Context, c *container, base containerd.Image, ref string) containerd.Image {
	n.t.Helper()
	image, err := n.tryCommit(ctx, c.ID(), base, ref)
	if err != nil {
		n.t.Fatalf("committing %s: %v", c.ID(), err)
	}
	return image
}

// tryCommit collects garbage after every step: nothing but leases keeps what the next
// step needs.
func (n *node) tryCommit(ctx context.Context, key string, base containerd.Image, ref string) (_ containerd.Image, err error) {
	ctx, done, err := n.client.WithLease(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { n.report("giving up a lease", done(context.WithoutCancel(ctx))) }()
	layer, err := rootfs.CreateDiff(ctx, key, n.snapshots(), n.client.DiffService())
	if err != nil {
		return nil, fmt.Errorf("diff: %w", err)
	}
	if err := n.collect(ctx); err != nil {
		return nil, err
	}
	target, err := n.extend(ctx, base.Target(), layer)
	if err != nil {
		return nil, err
	}
	if _, err := n.client.ImageService().Create(ctx, images.Image{Name: ref, Target: target}); err != nil {
		return nil, err
	}
	image, err := n.client.GetImage(ctx, ref)
	if err != nil {
		return nil, err
	}
	return image, image.Unpack(ctx, n.settings.snapshotter)
}

// extend writes config and manifest of an image with one layer more.
func (n *node) extend(ctx context.Context, base, layer ocispec.Descriptor) (ocispec.Descriptor, error) {
	store := n.client.ContentStore()
	manifest, err := images.Manifest(ctx, store, base, nil)
	if err != nil {
		return base, err
	}
	diffID, err := images.GetDiffID(ctx, store, layer)
	if err != nil {
		return base, fmt.Errorf("diffID of the new layer: %w", err)
	}
	var config ocispec.Image
	blob, err := content.ReadBlob(ctx, store, manifest.Config)
	if err != nil {
		return base, err
	}
	if err := json.Unmarshal(blob, &config); err != nil {
		return base, err
	}
	config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
	manifest.Layers = append(manifest.Layers, layer)
	manifest.Versioned, manifest.MediaType = specs.Versioned{SchemaVersion: 2}, ocispec.MediaTypeImageManifest
	if manifest.Config, err = writeJSON(ctx, store, ocispec.MediaTypeImageConfig, config, nil); err != nil {
		return base, err
	}
	refs := map[string]string{"containerd.io/gc.ref.content.config": manifest.Config.Digest.String()}
	for i, l := range manifest.Layers {
		refs[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", i)] = l.Digest.String()
	}
	return writeJSON(ctx, store, manifest.MediaType, manifest, refs)
}

func writeJSON(ctx context.Context, store content.Store, mediaType string, value any, labels map[string]string) (ocispec.Descriptor, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return desc, content.WriteBlob(ctx, store, desc.Digest.String(), strings.NewReader(string(data)), desc, content.WithLabels(labels))
}

// Commits, one after another, while containerd collects all the time: none of them
// misses its blob, and each leaves one lease that will expire.
func TestCommitDuringCollections(t *testing.T) {
	needStrata(t)
	const commits = 15
	n := newNode(t, settings{})
	image := n.importImage(n.ctx(), sampleRef, sample(t))
	c := n.start(image, spec{id: "busy", args: idle})
	group, ctx := errgroup.WithContext(n.ctx())
	stop := make(chan struct{})
	group.Go(func() error {
		for {
			select {
			case <-stop:
				return nil
			default:
			}
			if err := n.collect(ctx); err != nil {
				return fmt.Errorf("collecting: %w", err)
			}
		}
	})
	group.Go(func() error {
		defer close(stop)
		for i := range commits {
			c.exec(fmt.Sprintf("echo %d >/data/round", i))
			ref := fmt.Sprintf("strata.test/round:%d", i)
			if _, err := n.tryCommit(ctx, "busy", image, ref); err != nil {
				return fmt.Errorf("commit %d: %w", i, err)
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	c.remove()
	n.checkLeases(commits)
	last, err := n.client.GetImage(n.ctx(), fmt.Sprintf("strata.test/round:%d", commits-1))
	if err != nil {
		t.Fatal(err)
	}
	again := n.start(last, spec{id: "last", args: []string{"/bin/cat", "/data/round"}})
	again.wait()
	again.remove()
	expect(t, "the last commit", again.out.String(), fmt.Sprint(commits-1))
}

// checkLeases: all that is left are the differ's own, and they expire.
func (n *node) checkLeases(want int) {
	n.t.Helper()
	all, err := n.client.LeasesService().List(n.ctx())
	if err != nil {
		n.t.Fatal(err)
	}
	if len(all) != want {
		n.t.Errorf("%d leases, want %d: %v", len(all), want, ids(all))
	}
	for _, l := range all {
		if !strings.HasPrefix(l.ID, "strata-diff-") || l.Labels["containerd.io/gc.expire"] == "" {
			n.t.Errorf("lease %s has labels %v", l.ID, l.Labels)
		}
	}
}

func ids(all []leases.Lease) (ids []string) {
	for _, l := range all {
		ids = append(ids, l.ID)
	}
	return ids
}
