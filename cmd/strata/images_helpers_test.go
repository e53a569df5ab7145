// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/internal/testimage"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// imageRoot is the place of an image store, which is checked when the test ends.
type imageRoot struct {
	t   *testing.T
	dir string
}

func newImageRoot(t *testing.T) imageRoot {
	t.Helper()
	testutil.RequireRoot(t)
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	root := filepath.Join(testutil.Tmpfs(t), "images")
	t.Cleanup(func() {
		report, err := fsck.Check(context.Background(), fsck.Options{Root: filepath.Join(root, "store")})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range report.Findings {
			if f.Code != fsck.CodeTrashLeft {
				t.Errorf("fsck: %+v", f)
			}
		}
		// containerd's content store leaves a file to the finalizer.
		runtime.GC()
		runtime.GC()
	})
	return imageRoot{t, root}
}

// run runs a command.
func (r imageRoot) run(args ...string) (stdout, stderr string, code int) {
	return r.runWith("", args...)
}

func (r imageRoot) runWith(stdin string, args ...string) (stdout, stderr string, code int) {
	var out, errOut bytes.Buffer
	code = run(r.args(args), strings.NewReader(stdin), &out, &errOut)
	return out.String(), errOut.String(), code
}

func (r imageRoot) args(args []string) []string {
	return append([]string{name, "--root", r.dir}, args...)
}

// works runs a command that has to.
func (r imageRoot) works(args ...string) string {
	r.t.Helper()
	stdout, stderr, code := r.run(args...)
	if code != exitOK {
		r.t.Fatalf("strata %s ends with %d: %s", strings.Join(args, " "), code, stderr)
	}
	return stdout
}

// argsEnv makes TestAsProgram the program, with these arguments in JSON.
const argsEnv = "STRATA_TEST_ARGS"

// TestAsProgram is no test but the program, in a process that can be sent signals.
func TestAsProgram(t *testing.T) {
	text := os.Getenv(argsEnv)
	if text == "" {
		t.SkipNow()
	}
	var args []string
	if err := json.Unmarshal([]byte(text), &args); err != nil {
		t.Fatal(err)
	}
	os.Exit(run(args, os.Stdin, os.Stdout, os.Stderr))
}

// process is the program with its arguments, not yet started.
func (r imageRoot) process(args ...string) *exec.Cmd {
	r.t.Helper()
	text, err := json.Marshal(r.args(args))
	noError(r.t, err)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestAsProgram$")
	cmd.Env = append(os.Environ(), argsEnv+"="+string(text), "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	return cmd
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fixedImage is the same everywhere, so that its digests can stand in files.
func fixedImage(t *testing.T) v1.Image {
	t.Helper()
	img, err := testimage.Build([]string{"serve"},
		testimage.Layer{testimage.Dir("etc"), testimage.File("etc/motd", "welcome\n")},
		testimage.Layer{testimage.Dir("etc"), testimage.Whiteout("etc/motd"), testimage.File("etc/issue", "issue\n").Owner(7, 8)},
		testimage.Layer{},
	)
	noError(t, err)
	config, err := img.ConfigFile()
	noError(t, err)
	config = config.DeepCopy()
	config.Architecture, config.Author = "amd64", "somebody"
	config.Config.Entrypoint, config.Config.WorkingDir, config.Config.User = []string{"/bin/server", "-v"}, "/srv", "7:8"
	config.Config.Labels = map[string]string{"org.example.note": "a <note>"}
	config.Config.Healthcheck = &v1.HealthConfig{Test: []string{"CMD", "/bin/check"}}
	img, err = mutate.ConfigFile(img, config)
	noError(t, err)
	return img
}

// bigImage is an image with layers that take a while.
func bigImage(t *testing.T, layers, size int) v1.Image {
	t.Helper()
	var all []testimage.Layer
	for i := range layers {
		content := make([]byte, size)
		_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(content)
		all = append(all, testimage.Layer{testimage.Program("file", content)})
	}
	img, err := testimage.Build(nil, all...)
	noError(t, err)
	return img
}

func dockerArchive(t *testing.T, ref string, img v1.Image) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.tar")
	noError(t, testimage.WriteArchive(path, ref, img))
	return path
}
