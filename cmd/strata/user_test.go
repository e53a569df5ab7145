// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/testimage"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// The ordinary user of tests, who exists only for what a test starts.
const (
	testerName = "strata-tester"
	testerID   = 54321
	testerSubs = testerName + ":2000000:65536\n"
)

// built is the program, made once for all tests, where everybody may execute it.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "strata-cli-")
	if err != nil {
		return "", err
	}
	// The daemon is for its fsck. The flags are those of make build, whose packages serve.
	cmd := exec.Command("go", "build", "-trimpath", "-o", dir+"/", ".", "../containerd-strata-grpc")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", name, err, out)
	}
	return filepath.Join(dir, name), os.Chmod(dir, 0o755)
})

func TestMain(m *testing.M) {
	code := m.Run()
	if builtOnce {
		code = max(code, removeBuilt())
	}
	os.Exit(code)
}

func removeBuilt() (code int) {
	path, err := built()
	if err == nil {
		err = os.RemoveAll(filepath.Dir(path))
	}
	if err != nil {
		log.Print(err)
		return 1
	}
	return 0
}

// builtOnce says that a test asked for the program.
var builtOnce bool

// userSettings are what the host lends to the user.
type userSettings struct {
	subids string // content of /etc/subuid and /etc/subgid
	path   string // PATH; empty: the test's own
	env    []string
}

// tester is an ordinary user with a home on a file system of their own.
type tester struct {
	t        *testing.T
	settings userSettings
	dir      string // of files that are mounted over the host's
	home     string
	program  string
}

func newTester(t *testing.T, s userSettings) *tester {
	t.Helper()
	testutil.RequireRoot(t)
	testutil.RequireTool(t, "setpriv", "newuidmap", "newgidmap", "unshare")
	for _, path := range []string{"/etc/subuid", "/etc/subgid"} {
		if _, err := os.Stat(path); err != nil {
			testutil.CannotRun(t, "needs "+path+", over which the tester's is mounted")
		}
	}
	builtOnce = true
	program, err := built()
	must(t, err)
	dir, err := os.MkdirTemp("", "strata-user-") // t.TempDir is closed to others
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	testutil.CheckNoMounts(t, dir)
	u := &tester{t: t, settings: s, dir: dir, home: filepath.Join(dir, "home"), program: program}
	u.furnish(testutil.LoopFS(t, "ext4", 256, "-q"))
	return u
}

// furnish makes the home and the files of the host that know the user.
func (u *tester) furnish(filesystem string) {
	t := u.t
	must(t, errors.Join(os.Chmod(u.dir, 0o755), os.Mkdir(u.home, 0o755)))
	for _, name := range []string{"passwd", "group"} {
		data, err := os.ReadFile("/etc/" + name)
		must(t, err)
		line := fmt.Sprintf("%s:x:%d:%[2]d::%s:/bin/sh\n", testerName, testerID, u.home)
		if name == "group" {
			line = fmt.Sprintf("%s:x:%d:\n", testerName, testerID)
		}
		u.file(name, string(data)+line)
	}
	u.file("subids", u.settings.subids)
	fuse := filepath.Join(u.dir, "fuse")
	must(t, errors.Join(unix.Mknod(fuse, unix.S_IFCHR, int(unix.Mkdev(10, 229))), os.Chmod(fuse, 0o666)))
	must(t, unix.Mount(filesystem, u.home, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(u.home, 0)) })
	must(t, os.Chown(u.home, testerID, testerID))
}

func (u *tester) file(name, content string) {
	u.t.Helper()
	path := filepath.Join(u.dir, name)
	must(u.t, errors.Join(os.WriteFile(path, []byte(content), 0o644), os.Chmod(path, 0o644)))
}

// becomeUser makes the user known in a mount namespace of its own and runs a command as
// that user.
const becomeUser = `
for name in passwd group; do mount --bind "$H/$name" "/etc/$name"; done
for name in subuid subgid; do mount --bind "$H/subids" "/etc/$name"; done
mount --bind "$H/fuse" /dev/fuse
cd "$HOME"
export PATH="$USERPATH"
exec "$SETPRIV" --reuid "$USERID" --regid "$USERID" --clear-groups --inh-caps=-all "$@"
`

// command is the program with arguments, run by the user.
func (u *tester) command(args ...string) *exec.Cmd {
	setpriv, err := exec.LookPath("setpriv")
	must(u.t, err)
	path := u.settings.path
	if path == "" {
		path = filepath.Dir(u.program) + ":" + os.Getenv("PATH")
	}
	cmd := exec.Command("/bin/sh", append([]string{"-ec", becomeUser, "sh", u.program}, args...)...)
	cmd.Env = append([]string{
		"H=" + u.dir, "HOME=" + u.home, "TMPDIR=" + u.home, "SHELL=/bin/sh", "USERPATH=" + path, "PATH=" + os.Getenv("PATH"),
		"USERID=" + strconv.Itoa(testerID), "SETPRIV=" + setpriv,
	}, u.settings.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return cmd
}

// result is how a command ended.
type result struct {
	code           int
	stdout, stderr string
}

func (u *tester) run(args ...string) result {
	u.t.Helper()
	return u.runWith(nil, args...)
}

func (u *tester) runWith(stdin io.Reader, args ...string) result {
	u.t.Helper()
	cmd := u.command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		u.t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// ok is the output of a command that must not fail.
func (u *tester) ok(args ...string) string {
	u.t.Helper()
	r := u.run(args...)
	if r.code != 0 {
		u.t.Fatalf("%s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// refused checks how a command fails.
func (u *tester) refused(code int, says string, args ...string) {
	u.t.Helper()
	r := u.run(args...)
	if r.code != code || !strings.Contains(r.stderr, says) {
		u.t.Errorf("%s: exit code %d, want %d and %q\n%s%s", strings.Join(args, " "), r.code, code, says, r.stdout, r.stderr)
	}
}

// checkStore is a look at the user's layers when all is done.
func (u *tester) checkStore() {
	u.t.Helper()
	u.ok("gc") // waits for what is being deleted
	daemon := filepath.Join(filepath.Dir(u.program), "containerd-strata-grpc")
	r := u.run("unshare", daemon, "--root", filepath.Join(u.home, ".local/share/strata/store"), "fsck")
	if r.code != 0 {
		u.t.Errorf("fsck: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve is a registry on loopback with an image, whose complete name it returns.
func serve(t *testing.T, image v1.Image) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	ref := strings.TrimPrefix(server.URL, "http://") + "/library/sample:1"
	must(t, testimage.Push(ref, image))
	return ref
}

// owned is an image with files of several owners, and with deletions.
func owned(t *testing.T) v1.Image {
	t.Helper()
	image, err := testimage.Build([]string{"/bin/sh"},
		testimage.Layer{
			testimage.Dir("etc"), testimage.File("etc/config", "old\n"), testimage.File("etc/owned", "x").Owner(7, 8).Mode(0o640),
			testimage.Dir("data").Owner(1000, 1000), testimage.File("data/a", "a"), testimage.Dir("data/sub"), testimage.File("data/sub/deep", "deep"),
		},
		testimage.Layer{testimage.Dir("data").Owner(1000, 1000), testimage.Whiteout("data/a"), testimage.Dir("data/sub"), testimage.Opaque("data/sub"), testimage.File("data/sub/new", "n")},
	)
	must(t, err)
	return image
}
