// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/strata-snapshotter/strata/internal/testimage"
)

// metadata.db is lost while a container runs. Strata refuses to start and says what to do;
// after that the container has its files, the image runs, another is pulled, and all can
// be removed.
func TestRebuild(t *testing.T) {
	needStrata(t)
	n := newNode(t, settings{})
	ctx := n.ctx()
	image := n.importImage(ctx, sampleRef, sample(t))
	c := n.start(image, spec{id: "survivor", args: idle})
	c.exec("echo kept >/data/new")

	n.killStrata()
	<-n.strata.done
	if err := os.Remove(filepath.Join(n.root, "metadata.db")); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(n.dir, "strata.toml")
	command := "containerd-strata-grpc fsck --rebuild --root " + n.root
	out, err := exec.Command(env.strata, "--config", config, "--root", n.root, "--address", filepath.Join(n.dir, "strata.sock")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), command) {
		t.Fatalf("a start without metadata.db: %v, %s", err, out)
	}
	args := append([]string{"--config", config}, strings.Fields(command)[1:]...)
	if out, err := exec.Command(env.strata, args...).CombinedOutput(); err == nil || !strings.Contains(string(out), "rebuild: ") {
		t.Fatalf("the rebuild: %v, %s", err, out) // its exit code is 1: something was put right
	}
	n.startStrata()
	n.waitSnapshotter()

	expect(t, "the container's file", c.exec("cat /data/new"), "kept\n")
	n.run(image, "another")
	second := n.importImage(ctx, "example.com/second:1", build(t, base(t), testimage.Layer{testimage.File("etc/second", "x")}))
	c2 := n.start(second, spec{id: "second", args: []string{"/bin/sh", "-c", "cat /etc/second"}})
	c2.wait()
	c2.remove()
	expect(t, "another image", c2.out.String(), "x")
	c.remove()
	n.deleteImage(ctx, sampleRef)
	n.deleteImage(ctx, "example.com/second:1")
}

// Files of an image are deleted, and changed, below Strata. A repair extracts their layers
// again from containerd's content, and the image runs as if nothing had been.
func TestRepairFromContent(t *testing.T) {
	needStrata(t)
	n := newNode(t, settings{})
	image := n.importImage(n.ctx(), sampleRef, sample(t))
	n.strata.stop(t)
	damaged := 0
	for _, layer := range n.layerDirs() {
		fs := filepath.Join(n.root, "layers", strconv.Itoa(layer), "fs")
		if os.Remove(filepath.Join(fs, "etc/greeting")) == nil {
			damaged++
		}
		if file := filepath.Join(fs, "data/added"); exists(file) {
			writeFile(t, file, "other")
			damaged++
		}
	}
	if damaged != 2 {
		t.Fatalf("%d layers are damaged", damaged)
	}
	fsck := func(want int, options ...string) {
		t.Helper()
		args := append([]string{"--config", filepath.Join(n.dir, "strata.toml"), "--root", n.root, "fsck", "--data"}, options...)
		cmd := exec.Command(env.strata, args...)
		out, err := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Fatalf("fsck %q: exit %d, want %d: %v, %s", options, got, want, err, out)
		}
	}
	content := filepath.Join(n.dir, "containerd", "io.containerd.content.v1.content")
	fsck(4, "--repair", "--content", n.dir)
	fsck(4, "--content", content)
	fsck(1, "--repair", "--content", content)
	fsck(0)
	n.startStrata()
	n.waitSnapshotter()
	n.run(image, "repaired")
	n.deleteImage(n.ctx(), sampleRef)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
