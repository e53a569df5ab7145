// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/strata-snapshotter/strata/imagestore"
	"github.com/strata-snapshotter/strata/internal/testutil/testregistry"
)

var timeOfRecord = regexp.MustCompile(`"updated": "[^"]+"`)

// compareImages compares what was printed with a file, but for times.
// STRATA_UPDATE_GOLDEN=1 writes the files.
func compareImages(t *testing.T, file, got string) {
	t.Helper()
	got = timeOfRecord.ReplaceAllString(got, `"updated": "TIME"`)
	path := filepath.Join("testdata", "images", file)
	if os.Getenv("STRATA_UPDATE_GOLDEN") != "" {
		noError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		noError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	noError(t, err)
	if got != string(want) {
		t.Errorf("%s has\n%s\nwant\n%s", file, got, want)
	}
}

func TestImagesOutput(t *testing.T) {
	r := newImageRoot(t)
	compareImages(t, "none.txt", r.works("images"))
	compareImages(t, "none.json", r.works("images", "--json"))
	const ref = "example.test/shop/server:1.2"
	archive := dockerArchive(t, ref, fixedImage(t))
	compareImages(t, "load.txt", r.works("load", "--quiet", archive))
	compareImages(t, "tag.txt", r.works("tag", ref, "server"))
	compareImages(t, "images.txt", r.works("images"))
	compareImages(t, "images.json", r.works("images", "--json"))
	compareImages(t, "images-format.txt", r.works("images", "--format", "{{.Name}} {{.Layers}} {{.State}}"))
	compareImages(t, "inspect.json", r.works("inspect", ref))
	compareImages(t, "inspect-format.txt", r.works("inspect", "--format", "{{.User}} {{json .Entrypoint}} {{.Healthcheck.Retries}}", ref))
	plain := strings.ReplaceAll(r.works("layers", ref)+r.works("layers", "--lowerdir", ref)+r.works("layers", "--json", ref), r.dir, "ROOT")
	compareImages(t, "layers.txt", plain)
	compareImages(t, "rmi.txt", r.works("rmi", ref))
	compareImages(t, "rmi-last.txt", r.works("rmi", "server"))
	compareImages(t, "gc.txt", r.works("gc"))
	compareImages(t, "none.txt", r.works("images"))
}

func TestImageExitCodes(t *testing.T) {
	reg := testregistry.Start(t)
	ref := reg.Push(t, "server:1", fixedImage(t))
	r := newImageRoot(t)
	damaged := filepath.Join(t.TempDir(), "damaged.tar")
	data, err := os.ReadFile(dockerArchive(t, "example.test/a:1", fixedImage(t)))
	noError(t, err)
	noError(t, os.WriteFile(damaged, data[:len(data)/3], 0o600))
	for _, c := range []struct {
		code int
		says string
		args string
	}{
		{exitUsage, "argument is missing", "pull"},
		{exitUsage, "unknown argument", "images x"},
		{exitUsage, "not an image reference", "pull UPPER"},
		{exitUsage, "not an image reference", "layers a:b:c"},
		{exitUsage, "not a platform", "pull --platform / " + ref},
		{exitUsage, "must be missing, always or never", "pull --policy sometimes " + ref},
		{exitUsage, "exclude each other", "pull --json --quiet " + ref},
		{exitUsage, "exclude each other", "layers --json --lowerdir " + ref},
		{exitUsage, "--log-level", "--log-level loud images"},
		{exitUsage, "give one", "load " + archiveWithoutName(t)},
		{exitNotFound, "server:2", "pull " + reg.Ref("server:2")},
		{exitNotFound, "for linux/amd64 only", "pull --platform linux/s390x " + ref},
		{exitNotFound, "is not here", "inspect " + ref},
		{exitNotFound, "is not here", "layers " + ref},
		{exitNotFound, "is not here", "rmi " + ref},
		{exitNotFound, "is not here", "tag " + ref + " a"},
		{exitNotFound, "is not here", "save " + ref},
		{exitNotFound, "is not here", "pull --policy never " + ref},
		{exitNotFound, "/no/such/file", "load /no/such/file"},
		{exitBadContent, "damaged", "load " + damaged},
		{exitUnavailable, "refused", "pull 127.0.0.1:1/a"},
		{exitFailed, "no image store", "--root " + filepath.Dir(damaged) + " images"},
	} {
		stdout, stderr, code := r.run(strings.Fields(c.args)...)
		line := strings.TrimSuffix(stderr[strings.LastIndex(strings.TrimSuffix(stderr, "\n"), "\n")+1:], "\n")
		if code != c.code || !strings.Contains(line, c.says) || !strings.HasPrefix(line, "strata: ") || stdout != "" {
			t.Errorf("strata %s ends with %d and %q, want %d and %q; it printed %q", c.args, code, stderr, c.code, c.says, stdout)
		}
	}
}

// archiveWithoutName is a file whose name gives no image's name either.
func archiveWithoutName(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "--.tar")
	data, err := os.ReadFile(dockerArchive(t, "example.test/a:1", fixedImage(t)))
	noError(t, err)
	data = bytes.Replace(data, []byte(`"RepoTags":["example.test/a:1"]`), []byte(`"RepoTag_":["example.test/a:1"]`), 1)
	noError(t, os.WriteFile(path, data, 0o600))
	return path
}

func TestPullOutput(t *testing.T) {
	reg := testregistry.Start(t)
	ref := reg.Push(t, "big:1", bigImage(t, 3, 300_000))
	line := regexp.MustCompile(`^` + regexp.QuoteMeta(ref) + `@sha256:[0-9a-f]{64}\n$`)

	r := newImageRoot(t)
	stdout, stderr, code := r.run("pull", "-q", ref)
	if code != exitOK || !line.MatchString(stdout) || stderr != "" {
		t.Errorf("--quiet: %d, %q, %q", code, stdout, stderr)
	}
	reg.Requests()
	stdout, stderr, code = r.run("pull", ref)
	if code != exitOK || !line.MatchString(stdout) || stderr != ref+": is here\n" || len(reg.Requests()) != 0 {
		t.Errorf("again: %d, %q, %q", code, stdout, stderr)
	}

	r = newImageRoot(t)
	stdout, stderr, code = r.run("pull", ref)
	if code != exitOK || !line.MatchString(stdout) {
		t.Errorf("plain: %d, %q", code, stdout)
	}
	for _, want := range []string{ref + ": asking the registry", ": 3 layers, 90", "layer 3/3 ", ": fetched, 301.6kB", ": unpacked"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("plain: %q is not in\n%s", want, stderr)
		}
	}

	r = newImageRoot(t)
	checkSteps(t, r.works("pull", "--json", ref), ref)
}

// checkSteps reads lines of JSON as a program does.
func checkSteps(t *testing.T, out, ref string) {
	t.Helper()
	done := map[int]bool{}
	var last imagestore.Event
	for line := range strings.Lines(out) {
		var e imagestore.Event
		noError(t, json.Unmarshal([]byte(line), &e))
		if e.Image != ref {
			t.Errorf("a step of %q", e.Image)
		}
		if e.Step == imagestore.StepLayerDone {
			done[e.Index] = true
		}
		if e.Step == imagestore.StepUnpacking && len(e.Layers) != 3 {
			t.Errorf("layers %+v", e.Layers)
		}
		last = e
	}
	if len(done) != 3 || last.Step != imagestore.StepDone || last.Digest == "" {
		t.Errorf("layers %v are done, the last step is %+v", done, last)
	}
}

func TestDefaultRegistry(t *testing.T) {
	reg := testregistry.Start(t)
	ref := reg.Push(t, "server:latest", fixedImage(t))
	r := newImageRoot(t)
	t.Setenv(registryEnv, reg.Host)
	if out := r.works("pull", "server"); !strings.HasPrefix(out, ref+"@") {
		t.Errorf("pulled %s, want %s", out, ref)
	}
	r.works("inspect", "server")
}

// What save writes load reads, over a pipe and from a file.
func TestSaveLoadPipe(t *testing.T) {
	r := newImageRoot(t)
	const ref = "example.test/a:1"
	first := r.works("load", "-q", dockerArchive(t, ref, fixedImage(t)))
	stdout, stderr, code := r.run("save", ref)
	if code != exitOK {
		t.Fatalf("save ends with %d: %s", code, stderr)
	}
	r.works("rmi", ref)
	second, stderr, code := r.runWith(stdout, "load", "-q", "-")
	if code != exitOK || second != first {
		t.Errorf("load ends with %d, %q, %s, want %q", code, second, stderr, first)
	}
	file := filepath.Join(t.TempDir(), "saved.tar")
	r.works("save", "-o", file, ref)
	written, err := os.ReadFile(file)
	if err != nil || string(written) != stdout {
		t.Errorf("the file has %d bytes, %v, the pipe had %d", len(written), err, len(stdout))
	}
	if _, _, code := r.run("save", "-o", file, "nothing"); code != exitNotFound {
		t.Errorf("save of nothing ends with %d", code)
	}
	if again, err := os.ReadFile(file); err != nil || len(again) != len(written) {
		t.Errorf("a save that failed changed the file: %d bytes, %v", len(again), err)
	}
	if left, err := filepath.Glob(file + ".*"); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
