// SPDX-License-Identifier: Apache-2.0

package faultfs

import (
	"slices"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Names of operations, as Rule.Ops has them.
const (
	Write       = "write"
	Fsync       = "fsync"
	FsyncDir    = "fsyncdir"
	Rename      = "rename"
	Mkdir       = "mkdir"
	Create      = "create"
	Unlink      = "unlink"
	Rmdir       = "rmdir"
	Mknod       = "mknod"
	Link        = "link"
	Symlink     = "symlink"
	SetAttr     = "setattr"
	SetXattr    = "setxattr"
	RemoveXattr = "removexattr"
	Fallocate   = "fallocate"
	Open        = "open"
	Read        = "read"
	Lookup      = "lookup"
	OpenDir     = "opendir"
	ReadDir     = "readdir"
)

// Changes are the operations that change something, or make sure of it.
var Changes = []string{
	Write, Fsync, FsyncDir, Rename, Mkdir, Create, Unlink, Rmdir, Mknod, Link, Symlink,
	SetAttr, SetXattr, RemoveXattr, Fallocate,
}

// Rule says which operations don't work.
type Rule struct {
	Ops []string
	// First is the number of the first that fails, counted from 1 among those of Ops since
	// the rule was set. 0: none does, they are only counted.
	First int
	// Last is the number of the last that fails. 0: all do from First on.
	Last int
	// Errno is what they fail with. 0: they hang until the next rule is set, and then work.
	Errno syscall.Errno
}

// rules is the rule of the moment.
type rules struct {
	mu    sync.Mutex
	rule  Rule
	count int
	free  chan struct{} // closed when what hangs may go on
	held  chan struct{} // closed when something hangs
}

func newRules() *rules {
	r := &rules{}
	r.set(Rule{})
	return r
}

func (r *rules) set(rule Rule) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.free != nil {
		close(r.free)
	}
	r.rule, r.count, r.free, r.held = rule, 0, make(chan struct{}), make(chan struct{})
}

// check is what an operation fails with.
func (r *rules) check(op string) fuse.Status {
	r.mu.Lock()
	if !slices.Contains(r.rule.Ops, op) {
		r.mu.Unlock()
		return fuse.OK
	}
	r.count++
	if r.rule.First == 0 || r.count < r.rule.First || r.rule.Last != 0 && r.count > r.rule.Last {
		r.mu.Unlock()
		return fuse.OK
	}
	if errno := r.rule.Errno; errno != 0 {
		r.mu.Unlock()
		return fuse.Status(errno)
	}
	select {
	case <-r.held:
	default:
		close(r.held)
	}
	free := r.free
	r.mu.Unlock()
	<-free
	return fuse.OK
}

func (r *rules) counted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

// waitHeld returns when an operation hangs, or when there is another rule.
func (r *rules) waitHeld() {
	r.mu.Lock()
	held, free := r.held, r.free
	r.mu.Unlock()
	select {
	case <-held:
	case <-free:
	}
}
