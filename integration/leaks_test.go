// SPDX-License-Identifier: Apache-2.0

package integration

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
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/moby/sys/mountinfo"

	"github.com/strata-snapshotter/strata/fsck/fscktest"
)

// close ends the node. After a test that passed, everything is removed through
// containerd first and whatever is then left is an error; after one that failed the
// logs are shown and the rest is swept away in silence.
func (n *node) close() {
	t := n.t
	passed := !t.Failed() && !t.Skipped()
	if n.client != nil {
		for _, ns := range n.namespaces {
			n.wipe(ns)
		}
		if passed && n.settings.snapshotter == "strata" {
			n.checkEmpty()
		}
		_ = n.client.Close() // nothing depends on it
	}
	if n.containerd != nil {
		n.containerd.stop(t)
	}
	for _, pid := range processesOf(n.dir) {
		if n.strata != nil && pid == n.strata.cmd.Process.Pid {
			continue
		}
		t.Errorf("process %d was left: %s", pid, commandLine(pid))
		_ = syscall.Kill(pid, syscall.SIGKILL) // gone is as good
	}
	if n.strata != nil {
		n.strata.stop(t)
		n.checkRaces()
	}
	if passed && n.settings.snapshotter == "strata" {
		fscktest.Clean(t, n.root)
	}
	n.sweepMounts()
	n.sweepCgroups()
	if t.Failed() {
		n.dumpLogs()
	}
	if err := os.RemoveAll(n.dir); err != nil {
		t.Errorf("removing the test's directory: %v", err)
	}
}

// wipe removes all containers and images of a namespace, and has containerd collect.
func (n *node) wipe(namespace string) {
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(context.Background(), namespace), patience)
	defer cancel()
	containers, err := n.client.Containers(ctx)
	if err != nil {
		n.t.Errorf("listing the containers of %s: %v", namespace, err)
		return
	}
	for _, c := range containers {
		if task, err := c.Task(ctx, nil); err == nil {
			_, err = task.Delete(ctx, containerd.WithProcessKill)
			n.report("deleting a task", err)
		}
		n.report("deleting a container", c.Delete(ctx, containerd.WithSnapshotCleanup))
	}
	list, err := n.client.ImageService().List(ctx)
	n.report("listing the images", err)
	for _, image := range list {
		n.report("deleting an image", n.client.ImageService().Delete(ctx, image.Name))
	}
	n.report("collecting garbage", n.collect(ctx))
}

// collect runs containerd's garbage collection and waits for its end: a lease's
// synchronous removal is the way to ask for one.
func (n *node) collect(ctx context.Context) error {
	manager := n.client.LeasesService()
	lease, err := manager.Create(ctx, leases.WithRandomID())
	if err != nil {
		return err
	}
	return manager.Delete(ctx, lease, leases.SynchronousDelete)
}

func (n *node) report(what string, err error) {
	if err != nil {
		n.t.Errorf("%s: %v", what, err)
	}
}

// checkEmpty holds that a store whose last snapshot went has no directories left.
// Deletion is asynchronous, so it may take a moment.
func (n *node) checkEmpty() {
	end := time.Now().Add(patience)
	for {
		left := n.storeDirs()
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			n.t.Errorf("everything was removed, but the store still has %v", left)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// storeDirs lists the numbered directories of Strata's store as "layers/7".
func (n *node) storeDirs() []string {
	var all []string
	for _, kind := range []string{"snapshots", "layers", "staging", "trash"} {
		entries, err := os.ReadDir(filepath.Join(n.root, kind))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			n.t.Errorf("reading the store: %v", err)
		}
		for _, e := range entries {
			all = append(all, kind+"/"+e.Name())
		}
	}
	return all
}

// layerDirs lists the numbers of the published layers, and fails on anything that is
// not a number there.
func (n *node) layerDirs() []int {
	n.t.Helper()
	var numbers []int
	for _, name := range n.storeDirs() {
		kind, number, _ := strings.Cut(name, "/")
		v, err := strconv.Atoi(number)
		if kind != "trash" && kind != "staging" && (err != nil || v <= 0) {
			n.t.Errorf("%s is not named by a number", name)
		}
		if kind == "layers" {
			numbers = append(numbers, v)
		}
	}
	slices.Sort(numbers)
	return numbers
}

// processesOf lists the processes that have the directory in their command line.
func processesOf(dir string) []int {
	var pids []int
	entries, _ := os.ReadDir("/proc") // an empty list is seen by the mounts check
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && pid != os.Getpid() && strings.Contains(commandLine(pid), dir+"/") {
			pids = append(pids, pid)
		}
	}
	return pids
}

func commandLine(pid int) string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // it may have ended
	return string(bytes.ReplaceAll(data, []byte{0}, []byte{' '}))
}

func (n *node) sweepMounts() {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(n.dir))
	if err != nil {
		n.t.Errorf("listing mounts: %v", err)
	}
	slices.Reverse(mounts)
	for _, m := range mounts {
		n.t.Errorf("a mount was left: %s on %s", m.FSType, m.Mountpoint)
		if err := syscall.Unmount(m.Mountpoint, syscall.MNT_DETACH); err != nil {
			n.t.Errorf("unmounting %s: %v", m.Mountpoint, err)
		}
	}
}

// sweepCgroups removes the control groups that runc made above the containers' own
// and never removes. One that is still in use means that a container still runs.
func (n *node) sweepCgroups() {
	for _, ns := range n.namespaces {
		if !strings.HasPrefix(ns, n.namespace) {
			continue // the CRI's; a kubelet of this host may have that group, too
		}
		for _, pattern := range []string{"/sys/fs/cgroup/" + ns, "/sys/fs/cgroup/*/" + ns} {
			dirs, _ := filepath.Glob(pattern) // the patterns are well formed
			for _, dir := range dirs {
				if err := removeCgroup(dir); err != nil {
					n.t.Errorf("a control group is still in use: %v", err)
				}
			}
		}
	}
}

func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeCgroup(filepath.Join(dir, e.Name())))
		}
	}
	// Not os.RemoveAll: the files in there are the kernel's.
	return errors.Join(err, syscall.Rmdir(dir))
}

// checkRaces looks for data races in the daemon's log, which has those of a killed
// daemon, too: it has no exit code to tell of them.
func (n *node) checkRaces() {
	data, err := os.ReadFile(n.strata.log)
	n.report("reading Strata's log", err)
	if i := bytes.Index(data, []byte("WARNING: DATA RACE")); i >= 0 {
		n.t.Errorf("a data race in Strata:\n%s", data[i:min(len(data), i+4000)])
	}
}

// dumpLogs shows the end of both daemons' logs.
func (n *node) dumpLogs() {
	for _, p := range []*process{n.strata, n.containerd} {
		if p == nil {
			continue
		}
		data, err := os.ReadFile(p.log)
		if err != nil {
			n.t.Log(err)
			continue
		}
		lines := slices.DeleteFunc(strings.Split(string(data), "\n"), func(line string) bool {
			return strings.Contains(line, `msg="loading plugin"`) || strings.Contains(line, `msg="skip loading plugin"`)
		})
		n.t.Logf("the end of %s:\n%s", p.log, strings.Join(lines[max(0, len(lines)-80):], "\n"))
	}
}
