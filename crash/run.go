// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
)

// What happens to the daemon in a run.
const (
	cut  = "cut"  // power, and with it the daemon
	kill = "kill" // SIGKILL
	stop = "stop" // SIGTERM
)

// When it happens.
const (
	afterCommit = "commit" // right after a Commit was answered
	later       = "later"  // after that, when nobody does anything any more
	middle      = "middle" // at any moment
)

// slowest is how long the clients may take to come to the moment when it happens.
const slowest = 2 * time.Minute

// run is one run.
type run struct {
	options options
	pool    *pool
	report  *report
	setting setting
	disk    *disk
	daemon  *daemon

	registry *registry
	chains   chainLocks
	quiet    chan struct{} // closed: clients begin nothing any more
	over     atomic.Bool   // it happens: calls may fail from now on
	plan     plan
	counted  atomic.Int64  // commits
	reached  chan struct{} // closed when plan.commits were answered
}

// plan is when it happens: after some answers, and then after some time.
type plan struct {
	when    string
	commits int
	large   bool // only such as have many files count
	wait    time.Duration
}

// newRandom is a source of its own for each stream of a seed.
func newRandom(seed, stream uint64) *rand.Rand {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	binary.LittleEndian.PutUint64(key[8:], stream)
	return rand.New(rand.NewChaCha8(key))
}

func newPlan(random *rand.Rand, kind, when string) plan {
	p := plan{when: when}
	moments := []string{afterCommit, middle, middle, later}
	if kind != cut {
		moments = moments[:3] // nothing is lost in silence but what is in memory
	}
	if p.when == "" {
		p.when = moments[random.IntN(len(moments))]
	}
	switch {
	case p.when == middle:
		p.wait = 20*time.Millisecond + time.Duration(random.Int64N(int64(3*time.Second)))
	case p.when == later && kind == cut:
		p.wait = 100*time.Millisecond + time.Duration(random.Int64N(int64(6*time.Second)))
	}
	if p.when == middle {
		return p
	}
	p.commits = 1 + random.IntN(40)
	if p.large = random.IntN(2) == 0; p.large {
		p.commits = 1 + random.IntN(5)
	}
	return p
}

// oneRun makes a run. An error is that the run itself could not be made; what is wrong
// with the daemon is in the report.
func oneRun(ctx context.Context, o options, p *pool, kind string, seed uint64) (rep *report, err error) {
	begin := time.Now()
	rep = &report{Seed: seed, FS: o.fstype, Kind: kind}
	random := newRandom(seed, 0)
	r := &run{
		options: o, pool: p, report: rep, plan: newPlan(random, kind, o.when),
		quiet: make(chan struct{}), reached: make(chan struct{}),
	}
	rep.When, rep.Waited = r.plan.when, r.plan.wait.Milliseconds()
	r.registry = newRegistry(r.committed)
	ctx = namespaces.WithNamespace(ctx, namespace)
	if err := r.open(ctx); err != nil {
		return rep, errors.Join(err, r.close())
	}
	defer func() { err = errors.Join(err, r.close()) }()
	containerd, err := serveContent(r.setting.socket, p.store)
	if err != nil {
		return rep, err
	}
	defer containerd.close()
	if r.daemon, err = startDaemon(ctx, r.setting); err != nil {
		return rep, err // on a root that nothing has happened to yet
	}
	if err := r.load(ctx, kind); err != nil {
		return rep, err
	}
	rep.Commits, rep.Removes = r.registry.commits, r.registry.removes
	err = r.aftermath(ctx, kind)
	rep.Milliseconds = time.Since(begin).Milliseconds()
	return rep, err
}

// open makes the file system and the directories.
func (r *run) open(ctx context.Context) (err error) {
	if r.disk, err = newDisk(ctx, r.options); err != nil {
		return err
	}
	dir := r.options.work
	r.setting = setting{
		program: r.options.strata, dir: dir, root: filepath.Join(r.disk.dir, "root"),
		content: r.pool.dir, socket: filepath.Join(dir, "containerd.sock"), none: r.options.prove,
	}
	if err := os.MkdirAll(r.mountsDir(), 0o700); err != nil {
		return err
	}
	return r.setting.writeConfig()
}

// mountsDir is where clients mount, which is not cut.
func (r *run) mountsDir() string { return filepath.Join(r.options.work, "mounts") }

func (r *run) close() (err error) {
	if r.daemon != nil {
		err = r.daemon.kill()
	}
	if r.disk != nil {
		err = errors.Join(err, r.disk.close())
	}
	return err
}

// manyFiles is more than the daemon syncs one by one.
const manyFiles = 550

// committed is called after every Commit that was answered.
func (r *run) committed(s *snapshot) {
	if r.plan.large && (s.from == nil || len(s.chain[len(s.chain)-1].entries) < manyFiles) {
		return
	}
	if r.counted.Add(1) == int64(r.plan.commits) {
		close(r.reached)
	}
}

// load has the clients work until it happens, and lets it happen.
func (r *run) load(ctx context.Context, kind string) error {
	var clients sync.WaitGroup
	for i := range r.options.workers {
		c := &client{run: r, random: newRandom(r.report.Seed, uint64(i)+1), mounts: r.mountsDir()}
		clients.Go(func() { c.loop(ctx) })
	}
	waitErr := r.wait(ctx, &clients)
	r.over.Store(true)
	happenErr := r.happen(kind)
	if r.plan.when != later {
		close(r.quiet)
	}
	clients.Wait()
	return errors.Join(waitErr, happenErr)
}

// wait returns when the time has come.
func (r *run) wait(ctx context.Context, clients *sync.WaitGroup) error {
	ended := make(chan struct{})
	go func() {
		clients.Wait()
		close(ended)
	}()
	if r.plan.commits > 0 {
		select {
		case <-r.reached:
		case <-ended: // by findings
		case <-ctx.Done():
		case <-time.After(slowest):
			r.report.found(failure, "%d commits take more than %s", r.plan.commits, slowest)
		}
	}
	if r.plan.when == later {
		close(r.quiet)
		<-ended
	}
	select {
	case <-time.After(r.plan.wait):
	case <-ctx.Done():
	}
	return ctx.Err()
}

// happen does to the daemon what the run is about.
func (r *run) happen(kind string) error {
	switch kind {
	case cut:
		return errors.Join(r.disk.cutPower(r.daemon.signalKill), r.daemon.kill())
	case kill:
		return r.daemon.kill()
	}
	return r.daemon.stop()
}

// aftermath starts the daemon again and looks at everything.
func (r *run) aftermath(ctx context.Context, kind string) error {
	if kind == cut {
		if err := errors.Join(r.disk.unmount(), r.disk.mount()); err != nil {
			return err
		}
	}
	if r.setting.none {
		if err := r.forgetVolatile(ctx); err != nil {
			return err
		}
	}
	d, err := startDaemon(ctx, r.setting)
	if errors.Is(err, errDaemon) {
		r.report.found(start, "%v", err)
		return nil
	}
	if err != nil {
		return err
	}
	r.daemon = d
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"compare", r.compareAll}, {"look for orphans", r.cleanup}, {"fsck", r.fsck}, {"go on", r.goOn}, {"remove everything", r.removeAll},
	}
	for _, step := range steps {
		if err := step.do(ctx); err != nil {
			r.report.found(failure, "%s: %v", step.name, err)
			return ctx.Err()
		}
	}
	if err := r.daemon.stop(); err != nil {
		r.report.found(failure, "%v", err)
		return nil
	}
	return r.checkRoot(ctx)
}

// forgetVolatile takes away what keeps a daemon from using a root that may be
// incomplete, after it has seen that it does: as if this was another boot.
func (r *run) forgetVolatile(ctx context.Context) error {
	path := filepath.Join(r.setting.root, "volatile")
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("a root without durability is not marked: %w", err)
	}
	if err := os.WriteFile(path, []byte("another boot\n"), 0o600); err != nil {
		return err
	}
	d, err := startDaemon(ctx, r.setting)
	if err == nil {
		return errors.Join(errors.New("a root without durability is used after another boot"), d.kill())
	}
	if !errors.Is(err, errDaemon) {
		return err
	}
	return os.Remove(path)
}
