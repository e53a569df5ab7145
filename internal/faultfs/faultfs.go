// SPDX-License-Identifier: Apache-2.0

package faultfs

import (
	"errors"
	"net/rpc"
	"os"
	"os/exec"
	"testing"

	"github.com/strata-snapshotter/strata/internal/testutil"
)

// FS is a mounted file system.
type FS struct {
	t      testing.TB
	dir    string
	client *rpc.Client
}

// New mounts a file system that shows the directory backing. Nothing fails yet. It is
// unmounted when the test ends: what uses it has to be closed before.
func New(t testing.TB, backing string) *FS {
	t.Helper()
	testutil.RequireRoot(t)
	if _, err := os.Stat("/dev/fuse"); err != nil {
		testutil.CannotRun(t, "needs FUSE: "+err.Error())
	}
	f := &FS{t: t, dir: t.TempDir()}
	testutil.CheckNoMounts(t, f.dir)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+backing+":"+f.dir)
	cmd.Stderr = os.Stderr
	in, inErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	f.client = rpc.NewClient(struct {
		reader
		writer
	}{out, in})
	t.Cleanup(func() {
		if err := errors.Join(f.client.Close(), cmd.Wait()); err != nil {
			t.Errorf("end the file system: %v", err)
		}
	})
	f.Set(Rule{}) // answered when it is mounted
	return f
}

type reader interface{ Read([]byte) (int, error) }

type writer interface {
	Write([]byte) (int, error)
	Close() error
}

// Dir is where it is mounted.
func (f *FS) Dir() string { return f.dir }

// Set sets the rule of the moment. What hangs goes on.
func (f *FS) Set(rule Rule) {
	f.t.Helper()
	f.call("Rules.Set", rule, &struct{}{})
}

// Count says how many operations of the rule there were since it was set.
func (f *FS) Count() (n int) {
	f.t.Helper()
	f.call("Rules.Count", struct{}{}, &n)
	return n
}

// WaitHeld returns when an operation hangs.
func (f *FS) WaitHeld() {
	f.t.Helper()
	f.call("Rules.WaitHeld", struct{}{}, &struct{}{})
}

func (f *FS) call(method string, args, reply any) {
	f.t.Helper()
	if err := f.client.Call(method, args, reply); err != nil {
		f.t.Fatalf("%s: %v", method, err)
	}
}
