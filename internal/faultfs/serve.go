// SPDX-License-Identifier: Apache-2.0

package faultfs

import (
	"errors"
	"fmt"
	"net/rpc"
	"os"
	"strings"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// childEnv makes the test binary serve a file system: the directory that it shows and
// the mount point, with a colon between.
const childEnv = "STRATA_TEST_FAULTFS"

func init() {
	dirs := os.Getenv(childEnv)
	if dirs == "" {
		return
	}
	if err := serve(dirs); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serve ends, and unmounts, when its standard input ends.
func serve(dirs string) error {
	backing, at, _ := strings.Cut(dirs, ":")
	root, err := fs.NewLoopbackRoot(backing)
	if err != nil {
		return err
	}
	rules := newRules()
	server, err := fuse.NewServer(&faulty{fs.NewNodeFS(root, &fs.Options{}), rules}, at, &fuse.MountOptions{
		DirectMountStrict: true, AllowOther: true, Name: "faultfs", FsName: "faultfs", Options: []string{"default_permissions"},
		// Reads and writes have to come by here.
		DisabledCapabilities: fuse.CAP_PASSTHROUGH,
	})
	if err != nil {
		return err
	}
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		return err
	}
	control := rpc.NewServer()
	if err := control.RegisterName("Rules", &remote{rules}); err != nil {
		return err
	}
	control.ServeConn(pipes{os.Stdin, os.Stdout})
	rules.set(Rule{})
	err = server.Unmount()
	if err != nil {
		err = errors.Join(err, unix.Unmount(at, unix.MNT_DETACH))
	}
	return err
}

// pipes is both directions of a connection.
type pipes struct{ in, out *os.File }

func (p pipes) Read(b []byte) (int, error)  { return p.in.Read(b) }
func (p pipes) Write(b []byte) (int, error) { return p.out.Write(b) }
func (p pipes) Close() error                { return errors.Join(p.in.Close(), p.out.Close()) }

// remote is rules as net/rpc wants them.
type remote struct{ rules *rules }

// Set sets the rule of the moment. What hangs goes on.
func (r *remote) Set(rule Rule, _ *struct{}) error {
	r.rules.set(rule)
	return nil
}

// Count says how many operations of the rule there were.
func (r *remote) Count(_ struct{}, n *int) error {
	*n = r.rules.counted()
	return nil
}

// WaitHeld returns when an operation hangs.
func (r *remote) WaitHeld(struct{}, *struct{}) error {
	r.rules.waitHeld()
	return nil
}
