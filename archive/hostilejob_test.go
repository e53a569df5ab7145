// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/internal/inflate"
	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// Environment variables that tell a copy of the test binary what it is for.
const (
	mountNSMark = "STRATA_TEST_IN_MOUNTNS"
	hostileWork = "STRATA_TEST_HOSTILE_WORK"
)

// Classes of errors, as the process that extracts names them.
const (
	classInvalid   = "invalid argument"
	classExhausted = "resource exhausted"
	classOther     = "other"
)

// inMountNS runs the calling test again in a mount namespace of its own. It is
// true in that copy.
func inMountNS(t *testing.T) bool {
	t.Helper()
	if os.Getenv(mountNSMark) != "" {
		return true
	}
	testutil.RequireRoot(t)
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), mountNSMark+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in the mount namespace: %v\n%s", err, failures(out))
	}
	if !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Fatalf("the test did not run in the mount namespace:\n%s", out)
	}
	return false
}

// failures leaves out what passed.
func failures(out []byte) string {
	var b strings.Builder
	for line := range strings.Lines(string(out)) {
		if !strings.Contains(line, "--- PASS") && !strings.HasPrefix(line, "=== ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// hostileJob is a case in its sandbox.
type hostileJob struct {
	c    hostileCase
	mode hostileMode
	work work
}

// work is what the process that extracts is told.
type work struct {
	Files    []string
	Override bool
	Onto     bool
	Limits   archive.Limits
	Mount    []string
	Empty    string
	below    chain
}

// hostileOutcome is what it answers, and what was found out about it.
type hostileOutcome struct {
	View, Error, Class string
	Peak               int64 // bytes of memory

	crash   string
	outside []string
	written int64 // bytes on disk
}

func newHostileJob(t *testing.T, c hostileCase, mode hostileMode, h *house, files map[string][]byte) *hostileJob {
	t.Helper()
	for _, dir := range []string{"/tmp/badtars", layerIn} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	j := &hostileJob{c: c, mode: mode}
	j.work = work{Override: mode.options.OverrideStat, Onto: mode.onto, Limits: c.limits, Mount: h.mount, Empty: sandbox + "/empty"}
	for _, dir := range []string{"root", "empty", "outside/dir"} {
		must(t, os.MkdirAll(filepath.Join(sandbox, dir), 0o755))
	}
	must(t, os.WriteFile(canary+"/canary", []byte("alive"), 0o640))
	must(t, os.WriteFile(canary+"/dir/inner", []byte("alive"), 0o600))
	must(t, os.Chmod(canary+"/dir", 0o700))
	must(t, os.Mkdir(layerIn, 0o755))
	for _, file := range c.Files {
		data, ok := files[file]
		if !ok {
			t.Fatalf("no file %s", file)
		}
		must(t, os.WriteFile(filepath.Join(layerIn, file), data, 0o644))
		j.work.Files = append(j.work.Files, filepath.Join(layerIn, file))
	}
	// Whoever extracts owns what is outside, too: nothing but the code keeps it out.
	must(t, filepath.WalkDir("/tmp/badtars", func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, mode.owner, mode.owner))
	}))
	return j
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run runs the case and returns the memory it took.
func (j *hostileJob) run(t *testing.T) int64 {
	t.Helper()
	defer func() {
		for _, point := range testutil.MountsUnder(t, sandbox) {
			must(t, unix.Unmount(point, unix.UMOUNT_NOFOLLOW))
		}
	}()
	before, size := fingerprint(t), used(t)
	out := j.extract(t)
	out.written = used(t) - size
	out.outside = changes(before, fingerprint(t))
	for _, bad := range j.judge(out) {
		t.Errorf("%s: %s: expected to %s: %s", j.c.ID, j.c.Note, j.c.Expect, bad)
	}
	return out.Peak
}

// extract starts the process that extracts. Its descriptor 7 is a directory
// outside, as a leaked one would be, and its working directory is there, too.
func (j *hostileJob) extract(t *testing.T) (out hostileOutcome) {
	t.Helper()
	text, err := json.Marshal(j.work)
	must(t, err)
	leak, err := os.Open(canary)
	must(t, err)
	r, w, err := os.Pipe()
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.run=^TestHostileWork$", "-test.count=1")
	// The race detector would wait a second before each exit.
	cmd.Env = []string{hostileWork + "=" + string(text), "GORACE=atexit_sleep_ms=0"}
	cmd.Dir = canary
	cmd.ExtraFiles = []*os.File{w, nil, nil, nil, leak}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if j.mode.owner != 0 {
		id := uint32(j.mode.owner)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
	}
	must(t, cmd.Start())
	must(t, errors.Join(w.Close(), leak.Close()))
	answer, err := io.ReadAll(r)
	must(t, errors.Join(err, r.Close()))
	if err := cmd.Wait(); err != nil {
		out.crash = fmt.Sprintf("%v\n%s", err, stderr.String())
	} else if err := json.Unmarshal(answer, &out); err != nil {
		out.crash = fmt.Sprintf("no answer: %v\n%s", err, stderr.String())
	}
	return out
}

// TestHostileWork is not a test, but the process that extracts.
func TestHostileWork(t *testing.T) {
	text := os.Getenv(hostileWork)
	if text == "" {
		t.Skip("only started by the tests of hostile layers")
	}
	unix.Umask(0o022)
	var w work
	must(t, json.Unmarshal([]byte(text), &w))
	var answer hostileOutcome
	view, err := w.extract()
	answer.View = view
	switch {
	case err == nil:
	case errdefs.IsInvalidArgument(err):
		answer.Class = classInvalid
	case errdefs.IsResourceExhausted(err):
		answer.Class = classExhausted
	default:
		answer.Class = classOther
	}
	if err != nil {
		answer.Error = err.Error()
	}
	answer.Peak = peakMemory(t)
	must(t, json.NewEncoder(os.NewFile(3, "answer")).Encode(answer))
}

// peakMemory is the most memory that this process has had. What getrusage says
// begins with what the process had that started it.
func peakMemory(t *testing.T) int64 {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	must(t, err)
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	var kib int64
	_, err = fmt.Sscan(rest, &kib)
	must(t, err)
	return kib << 10
}

// extract extracts the layers beside what must not change, joins them, and
// returns where they can be looked at.
func (w *work) extract() (view string, err error) {
	h := &house{base: sandbox, empty: w.Empty, mount: w.Mount}
	h.options = archive.Options{OverrideStat: w.Override, Limits: w.Limits}
	for _, option := range w.Mount {
		if option == "userxattr" {
			h.options.Xattrs = "user.overlay."
		}
	}
	var stack chain
	for _, file := range w.Files {
		if w.Onto {
			if stack, err = h.write(stack, func(root string) error { return ontoFile(h, root, file) }); err != nil {
				return "", err
			}
			continue
		}
		var x extracted
		if x, err = h.extractFile(file); err != nil {
			return "", err
		}
		if w.Override {
			w.stacked(h, x, file)
			if view, err = w.alone(h, x, file); err != nil {
				return "", err
			}
			continue
		}
		if stack, err = h.join(stack, x); err != nil {
			return "", err
		}
	}
	if w.Override {
		return view, nil
	}
	mounts, err := h.plan(stack).Mounts()
	if err != nil {
		return "", blameless("plan", err)
	}
	if view, err = h.mkdir("view"); err != nil {
		return "", err
	}
	return view, mount.All(mounts, view)
}

// alone is what there is to do without privilege, where nothing can be mounted:
// a layer that asks for it is extracted onto one directory.
func (w *work) alone(h *house, x extracted, file string) (view string, err error) {
	if x.result.Needs.Mounted == "" {
		return x.dir, nil
	}
	return sandbox + "/root", ontoFile(h, sandbox+"/root", file)
}

// stacked extracts a layer once more, onto itself and those below, which are read where
// they are. What comes of it does not matter, as long as nothing else changes.
func (w *work) stacked(h *house, x extracted, file string) {
	plain := plainHouse{*h}
	w.below = push(w.below, topOf(x))
	upper, err := h.mkdir("upper")
	if err != nil {
		return
	}
	_ = plain.stacked(w.below, func(options archive.Options) error {
		return withDir(upper, func(dir *os.File) error {
			return withBlob(file, &options, func(src archive.Source) error {
				_, err := archive.ApplyOnto(context.Background(), src, dir, options)
				return err
			})
		})
	})
}

func ontoFile(h *house, root, file string) error {
	return withDir(root, func(dir *os.File) error {
		return withBlob(file, &h.options, func(src archive.Source) error {
			_, err := archive.ApplyOnto(context.Background(), src, dir, h.options)
			return err
		})
	})
}

// extractFile is extract for a blob that may be compressed, and is not held in
// memory unless it has to be extracted again.
func (h *house) extractFile(file string) (x extracted, err error) {
	if x.dir, err = h.mkdir("layer"); err != nil {
		return x, err
	}
	err = withDir(x.dir, func(dir *os.File) error {
		return withBlob(file, &h.options, func(src archive.Source) error {
			x.result, err = archive.Apply(context.Background(), src, dir, h.options)
			return err
		})
	})
	if err == nil && !x.result.Needs.None() {
		x.blob, err = os.ReadFile(file) // those are never compressed
	}
	return x, err
}

func withBlob(file string, options *archive.Options, do func(archive.Source) error) (err error) {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	format := inflate.Uncompressed
	if strings.HasSuffix(file, ".gz") {
		format = inflate.Gzip
	}
	r, err := inflate.Open(f, format, inflate.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	options.Ratio = func() int64 {
		at, _ := f.Seek(0, io.SeekCurrent)
		return at
	}
	return do(r)
}

// fingerprint describes everything that must not change.
func fingerprint(t *testing.T) map[string]string {
	t.Helper()
	prints := map[string]string{}
	must(t, filepath.WalkDir("/tmp", func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if allowed(path) {
			return fs.SkipDir
		}
		prints[path] = fileprint(path)
		return nil
	}))
	return prints
}

// allowed tells whether a directory is one that the process works in.
func allowed(path string) bool {
	name, ok := strings.CutPrefix(path, sandbox+"/")
	if !ok || strings.Contains(name, "/") {
		return false
	}
	return strings.TrimRight(name, "0123456789") != "outside"
}

func fileprint(path string) string {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err.Error()
	}
	if path == sandbox {
		return "a directory" // that new ones are made in
	}
	xattrs, err := layertest.Xattrs(path)
	sum := ""
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		data, _ := os.ReadFile(path)
		sum = fmt.Sprintf("%x", sha256.Sum256(data))
	}
	return fmt.Sprintf("%o %d:%d links %d time %d.%d %s %v %v", st.Mode, st.Uid, st.Gid, st.Nlink,
		st.Mtim.Sec, st.Mtim.Nsec, sum, xattrs, err)
}

func changes(before, after map[string]string) []string {
	var list []string
	for path, print := range after {
		if before[path] != print {
			list = append(list, fmt.Sprintf("%s: %q became %q", path, before[path], print))
		}
	}
	for path := range before {
		if _, ok := after[path]; !ok {
			list = append(list, path+" is gone")
		}
	}
	return list
}

// used is what the file system of the sandbox holds, in bytes.
func used(t *testing.T) int64 {
	t.Helper()
	var st unix.Statfs_t
	must(t, unix.Statfs(sandbox, &st))
	return int64(st.Blocks-st.Bfree) * st.Bsize
}
