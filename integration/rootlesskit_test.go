// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/sys/userns"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/testutil"
)

// daemonVariable names the daemon to a copy of the tests that runs in a user
// namespace, where nothing can be built. It also marks such a copy.
const daemonVariable = "STRATA_TEST_DAEMON"

// nobody is the user whose namespace it is: every host has it, and it may do nothing.
const nobody = "nobody"

// isRootless tells whether this is the copy that runs in a user namespace.
func isRootless() bool { return os.Getenv(daemonVariable) != "" }

// rootless runs the calling test a second time as rootless containerd is run: by an
// ordinary user, in namespaces that rootlesskit makes with the ids of /etc/subuid. It
// returns true in that copy, and false in the original, which has then failed exactly
// if the copy did. The copy keeps everything on a fresh file system of that type.
func rootless(t *testing.T, fstype string) bool {
	t.Helper()
	if isRootless() {
		if !userns.RunningInUserNS() {
			t.Fatalf("%s is set, but this is no user namespace", daemonVariable)
		}
		return true
	}
	needStrata(t)
	kit := needProgram(t, "rootlesskit")
	testutil.RequireTool(t, "newuidmap", "newgidmap", "setpriv", "fuse-overlayfs", "mount.fuse3")
	h := newRootlessHost(t, fstype)
	cmd := exec.Command("/bin/sh", "-ec", rootlessScript)
	cmd.Env = append(os.Environ(), h.environment(kit, t.Name())...)
	// A mount namespace for the script: what it mounts, the host does not see.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Fatalf("in the user namespace: %v\n%s", err, out)
	case !strings.Contains(string(out), "--- PASS: "+t.Name()+" "):
		t.Fatalf("it did not run in the user namespace:\n%s", out)
	}
	return false
}

// rootlessScript gives the user subordinate ids, which newuidmap looks for in /etc, and
// brings the programs to where the user reaches them: a checkout may be below a closed
// directory. /run becomes a copy that the user can write to.
const rootlessScript = `
mount --bind "$H/subids" /etc/subuid
mount --bind "$H/subids" /etc/subgid
mount --bind "$TEST" "$H/test"
mount --bind "$DAEMON" "$H/daemon"
mount --bind "$PROGRAMS" "$H/bin"
# Where udev has not been, only root may open it.
mount --bind "$H/fuse" /dev/fuse
exec setpriv --reuid "$USER_ID" --regid "$GROUP_ID" --clear-groups --inh-caps=-all --pdeathsig KILL \
	"$H/bin/$KIT" --net=host --pidns --copy-up=/run --propagation=rprivate --state-dir="$H/t/kit" \
	"$H/test" -test.run="$RUN" -test.v -test.count=1
`

// rootlessHost is what the host lends: a directory of the user's, and places to bind to.
type rootlessHost struct {
	dir      string
	uid, gid string
}

func newRootlessHost(t *testing.T, fstype string) *rootlessHost {
	t.Helper()
	for _, path := range []string{"/etc/subuid", "/etc/subgid"} {
		if _, err := os.Stat(path); err != nil {
			unable(t, err.Error()+": the subordinate ids of the test's user are mounted over it")
		}
	}
	account, err := user.Lookup(nobody)
	if err != nil {
		unable(t, err.Error())
	}
	// A short name: paths of sockets have an end.
	h := &rootlessHost{uid: account.Uid, gid: account.Gid}
	if h.dir, err = os.MkdirTemp("", "strata-rl-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(h.dir); err != nil {
			t.Errorf("removing the user's directory: %v", err)
		}
	})
	testutil.CheckNoMounts(t, h.dir)
	h.fill(t, testutil.LoopFS(t, fstype, 512, "-q"))
	return h
}

// fill makes the mount points, and lets the user have the file system at h.dir/t.
func (h *rootlessHost) fill(t *testing.T, filesystem string) {
	t.Helper()
	if err := os.Chmod(h.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bin", "t"} {
		if err := os.Mkdir(filepath.Join(h.dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{
		"test": "", "daemon": "", "subids": fmt.Sprintf("%s:%d:65536\n", nobody, hostID),
	} {
		writeFile(t, filepath.Join(h.dir, name), content)
	}
	// newuidmap reads it as the user, while it still is that.
	if err := os.Chmod(filepath.Join(h.dir, "subids"), 0o644); err != nil {
		t.Fatal(err)
	}
	fuse := filepath.Join(h.dir, "fuse")
	if err := errors.Join(unix.Mknod(fuse, unix.S_IFCHR, int(unix.Mkdev(10, 229))), os.Chmod(fuse, 0o666)); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(h.dir, "t")
	if err := syscall.Mount(filesystem, target, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(target, 0); err != nil {
			t.Errorf("unmounting the user's file system: %v", err)
		}
	})
	uid, _ := strconv.Atoi(h.uid) // the passwd file's own numbers
	gid, _ := strconv.Atoi(h.gid)
	if err := os.Chown(target, uid, gid); err != nil {
		t.Fatal(err)
	}
}

// environment is for the script and for the copy.
func (h *rootlessHost) environment(kit, test string) []string {
	own := filepath.Join(h.dir, "t")
	return []string{
		"H=" + h.dir, "TEST=/proc/" + strconv.Itoa(os.Getpid()) + "/exe", "DAEMON=" + env.strata,
		"PROGRAMS=" + env.bin, "KIT=" + filepath.Base(kit), "USER_ID=" + h.uid, "GROUP_ID=" + h.gid,
		"RUN=^" + strings.ReplaceAll(regexp.QuoteMeta(test), "/", "$/^") + "$",
		daemonVariable + "=" + filepath.Join(h.dir, "daemon"), "STRATA_TEST_BIN=" + filepath.Join(h.dir, "bin"),
		"TMPDIR=" + own, "HOME=" + own, "XDG_RUNTIME_DIR=" + own,
	}
}

// newRootlessNode is a node in the user namespace.
func newRootlessNode(t *testing.T, s settings) *node {
	t.Helper()
	// The copy of /run leads to the host's directories by links. The shims' sockets
	// need one of our own, as containerd's own script for rootless use has it.
	const shims = "/run/containerd"
	if info, err := os.Lstat(shims); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		if err := os.Remove(shims); err != nil {
			t.Fatal(err)
		}
	}
	return newNode(t, s)
}
