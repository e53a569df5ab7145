// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/moby/sys/mountinfo"

	"github.com/strata-snapshotter/strata/fsck"
)

// wipe removes everything through containerd, and looks whether the store is empty then.
func (r *run) wipe(ctx context.Context) {
	for _, ns := range r.node.namespaces {
		r.report.problem("remove everything of "+ns, r.node.wipe(namespaces.WithNamespace(ctx, ns)))
	}
	r.report.problem("everything was removed", eventually(ctx, "the store is empty", func(context.Context) error {
		left, err := r.node.storeDirs()
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("it has %v", left)
		}
		return err
	}))
}

func (n *node) wipe(ctx context.Context) error {
	all, err := n.client.Containers(ctx)
	for _, c := range all {
		if task, taskErr := c.Task(ctx, nil); taskErr == nil {
			_, taskErr = task.Delete(ctx, containerd.WithProcessKill)
			err = errors.Join(err, taskErr)
		}
		err = errors.Join(err, c.Delete(ctx, containerd.WithSnapshotCleanup))
	}
	list, listErr := n.client.ImageService().List(ctx)
	for _, image := range list {
		err = errors.Join(err, n.client.ImageService().Delete(ctx, image.Name))
	}
	held, leasesErr := n.client.LeasesService().List(ctx)
	for _, lease := range held {
		err = errors.Join(err, n.client.LeasesService().Delete(ctx, lease))
	}
	// containerd looks for what a dead daemon did not remove where it removed something.
	if _, prepareErr := n.snapshots().Prepare(ctx, "last", ""); prepareErr != nil {
		return errors.Join(err, prepareErr)
	}
	return errors.Join(err, listErr, leasesErr, n.snapshots().Remove(ctx, "last"), n.collect(ctx))
}

// storeDirs lists the numbered directories of the store, as "layers/7".
func (n *node) storeDirs() (all []string, err error) {
	for _, kind := range []string{"snapshots", "layers", "staging", "trash"} {
		entries, readErr := os.ReadDir(filepath.Join(n.root, kind))
		if !errors.Is(readErr, fs.ErrNotExist) {
			err = errors.Join(err, readErr)
		}
		for _, e := range entries {
			all = append(all, kind+"/"+e.Name())
		}
	}
	return all, err
}

// finish ends both daemons and looks at what is left. After a finding nothing of that is
// one more, and the logs are shown.
func (r *run) finish(ctx context.Context) {
	n, failed := r.node, r.report.failed() || ctx.Err() != nil
	if n.client != nil {
		_ = n.client.Close() // nothing depends on it
	}
	note := r.report.problem
	if failed {
		note = func(string, error) {}
	}
	if n.containerd != nil {
		note("stop containerd", n.containerd.stop())
	}
	note("processes", n.sweepProcesses())
	if n.strata != nil {
		note("stop the daemon", n.strata.stop())
		note("the daemon's log", n.readLog())
	}
	note("mounts", n.sweepMounts())
	note("control groups", n.sweepCgroups())
	if !failed {
		r.fsck(context.WithoutCancel(ctx))
	}
	if r.report.failed() {
		n.showLogs()
	}
}

func (r *run) fsck(ctx context.Context) {
	checked, err := fsck.Check(ctx, fsck.Options{Root: r.node.root, Usage: true})
	if err != nil {
		r.report.problem("fsck", err)
		return
	}
	for _, f := range checked.Findings {
		if f.Code != fsck.CodeTrashLeft {
			r.report.found("fsck: %s: %s: %+v: %s", f.Severity, f.Code, f.Subject, f.Message)
		}
	}
}

// sweepProcesses kills what has the work directory in its command line.
func (n *node) sweepProcesses() (err error) {
	entries, err := os.ReadDir("/proc")
	for _, e := range entries {
		pid, convErr := strconv.Atoi(e.Name())
		if convErr != nil || pid == os.Getpid() || n.strata != nil && pid == n.strata.cmd.Process.Pid {
			continue
		}
		line, readErr := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if readErr == nil && bytes.Contains(line, []byte(n.dir+"/")) {
			err = errors.Join(err, fmt.Errorf("%d was left: %s", pid, bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
			_ = syscall.Kill(pid, syscall.SIGKILL) // gone is as good
		}
	}
	return err
}

func (n *node) sweepMounts() error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(n.dir))
	for _, m := range slices.Backward(mounts) {
		err = errors.Join(err, fmt.Errorf("%s was left on %s", m.FSType, m.Mountpoint), syscall.Unmount(m.Mountpoint, syscall.MNT_DETACH))
	}
	return err
}

// sweepCgroups removes the control groups that runc made above those of the containers.
func (n *node) sweepCgroups() (err error) {
	for _, ns := range n.namespaces {
		for _, pattern := range []string{"/sys/fs/cgroup/" + ns, "/sys/fs/cgroup/*/" + ns} {
			dirs, _ := filepath.Glob(pattern) // the patterns are well formed
			for _, dir := range dirs {
				err = errors.Join(err, removeCgroup(dir))
			}
		}
	}
	return err
}

func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeCgroup(filepath.Join(dir, e.Name())))
		}
	}
	// Not os.RemoveAll: the files in there are the kernel's.
	return errors.Join(err, syscall.Rmdir(dir))
}

// readLog looks for what the daemon should never have to say.
func (n *node) readLog() error {
	text, err := os.ReadFile(n.strata.log)
	for _, bad := range []string{"WARNING: DATA RACE", "\npanic: ", "fatal error: "} {
		if i := bytes.Index(text, []byte(bad)); i >= 0 {
			err = errors.Join(err, fmt.Errorf("%s", text[i:min(len(text), i+4000)]))
		}
	}
	return err
}

// showLogs shows the end of both logs.
func (n *node) showLogs() {
	for _, p := range []*process{n.strata, n.containerd} {
		if p == nil {
			continue
		}
		text, err := os.ReadFile(p.log)
		lines := slices.DeleteFunc(strings.Split(string(text), "\n"), func(line string) bool {
			return strings.Contains(line, "loading plugin")
		})
		fmt.Fprintf(os.Stderr, "the end of %s (%v):\n%s\n", p.log, err, strings.Join(lines[max(0, len(lines)-60):], "\n"))
	}
}
