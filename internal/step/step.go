// SPDX-License-Identifier: Apache-2.0

// Package step lets those who watch a call know what it is doing. Whoever does something
// that can take long, or hang with the disk, says so:
//
//	defer step.Enter(ctx, step.Sync)()
//
// It costs nothing where nobody watches.
package step

import (
	"context"
	"sync/atomic"
	"time"
)

// The steps. They are in logs: words for administrators, not names of functions.
const (
	Wait        = "wait for another call on the same snapshot"
	WaitBlob    = "wait for another extraction of the same blob"
	Directories = "make directories"
	Sync        = "sync layers"
	Walk        = "walk"
	Extract     = "extract"
	ReadBlob    = "find the blob"
	Answer      = "look into the layers below"
	Publish     = "publish"
	Transaction = "transaction"
	Trash       = "move to the trash"
	Delete      = "delete"
	Stores      = "look into additional stores"
	Look        = "look for directories"
	Chown       = "change owners"
)

type key struct{}

// Recorder knows the step of one call. Its methods may be called concurrently.
type Recorder struct{ now atomic.Pointer[entry] }

type entry struct {
	what  string
	since time.Time
	outer *entry
}

// With returns a context whose steps r records.
func With(ctx context.Context, r *Recorder) context.Context {
	return context.WithValue(ctx, key{}, r)
}

// Enter says that a step begins, and returns what says that it is over.
func Enter(ctx context.Context, what string) (leave func()) {
	r, ok := ctx.Value(key{}).(*Recorder)
	if !ok {
		return func() {}
	}
	e := &entry{what, time.Now(), r.now.Load()}
	r.now.Store(e)
	return func() { r.now.Store(e.outer) }
}

// Current returns the innermost step and since when it lasts; "" between steps.
func (r *Recorder) Current() (what string, since time.Time) {
	if e := r.now.Load(); e != nil {
		return e.what, e.since
	}
	return "", time.Time{}
}
