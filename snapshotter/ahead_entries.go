// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/strata-snapshotter/strata/metadata"
)

const (
	// maxAhead is how many layers may wait to be asked for: so much was done in vain if
	// nobody does.
	maxAhead = 64
	// maxAheadBytes is how much they may take on disk before no further one is begun.
	maxAheadBytes = 1 << 30
	// keepAhead is how long they wait while no image is followed, nothing is extracted, and
	// none of them is asked for.
	keepAhead = 30 * time.Second
	// keepGivenUp is the same after the unpacking of an image was given up: others may
	// have its layers to unpack, too, and then are at it.
	keepGivenUp = 3 * time.Second
	// aheadPatience is how long Prepare waits for a layer that is being extracted at the
	// moment. Small layers end within it, and the calls that it takes to extract one in
	// its turn take longer.
	aheadPatience = 20 * time.Millisecond
)

// ahead knows the layers that were extracted before they were asked for, and those that
// are being extracted.
type ahead struct {
	ctx    context.Context // ends with the snapshotter
	cancel context.CancelFunc
	atOnce int // extractions that leave room for no further one
	drop   func([]*aheadEntry)

	mu      sync.Mutex
	closed  bool
	running int // extractions under way, whoever asked for them
	entries []*aheadEntry
	images  []*followed
	uses    int           // that were ended
	change  chan struct{} // closed when there may be room
	touched time.Time
	keep    time.Duration // keepAhead or keepGivenUp
	timer   *time.Timer   // is there while entries are
	working sync.WaitGroup
}

// followed is an image that is being unpacked.
type followed struct {
	namespace string
	chainIDs  []digest.Digest
	giveUp    func()
}

// aheadEntry is one layer. Its fields but done are guarded by ahead.mu.
type aheadEntry struct {
	AheadLayer
	landing
	synced bool          // the layer's place survives a power cut
	used   chan struct{} // is there while somebody has it, and closed after that
	done   chan struct{} // closed when the extraction has ended
}

// landing is what an extraction made.
type landing struct {
	layer metadata.Layer // has a number when it was extracted
	alone bool           // it asks nothing of the layers below
	end   func()         // ends the use of the number
}

func newAhead(layers int, drop func([]*aheadEntry)) *ahead {
	a := &ahead{atOnce: layers + 1, drop: drop, change: make(chan struct{}), keep: keepAhead}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a
}

// enter counts an extraction that somebody asked for. The function returned ends it, and
// may be called again.
func (a *ahead) enter() (leave func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running++
	return sync.OnceFunc(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.running--
		a.changed()
	})
}

// changed wakes those who wait for room. The caller holds mu.
func (a *ahead) changed() {
	a.touched = time.Now()
	close(a.change)
	a.change = make(chan struct{})
}

// begin waits for room.
func (a *ahead) begin(ctx context.Context, l AheadLayer) (*aheadEntry, error) {
	for {
		e, change, err := a.tryBegin(l)
		if e != nil || err != nil {
			return e, err
		}
		select {
		case <-change:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-a.ctx.Done():
		}
	}
}

func (a *ahead) tryBegin(l AheadLayer) (e *aheadEntry, change <-chan struct{}, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, nil, fmt.Errorf("the snapshotter was closed: %w", errdefs.ErrUnavailable)
	}
	if a.running >= a.atOnce || len(a.entries) >= maxAhead || a.bytes() >= maxAheadBytes {
		return nil, a.change, nil
	}
	e = &aheadEntry{AheadLayer: l, done: make(chan struct{})}
	a.entries = append(a.entries, e)
	a.running++
	a.working.Add(1)
	return e, nil, nil
}

// follow keeps what was extracted as long as an image is being unpacked, and for a while.
func (a *ahead) follow(image *followed) (end func(error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.images, a.keep = append(a.images, image), keepAhead
	return func(err error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.images = slices.DeleteFunc(a.images, func(o *followed) bool { return o == image })
		a.changed()
		if err != nil {
			a.givenUp()
		}
	}
}

// givenUp lets what was extracted go soon. The caller holds mu.
func (a *ahead) givenUp() {
	a.keep = keepGivenUp
	if a.timer != nil {
		a.timer.Reset(a.keep)
	}
}

// gone is told of each extraction that was taken back.
func (a *ahead) gone(namespace, chainID string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, image := range a.images {
		if image.namespace == namespace && slices.Contains(image.chainIDs, digest.Digest(chainID)) {
			image.giveUp()
		}
	}
}

// bytes is what the layers take that wait to be asked for. The caller holds mu.
func (a *ahead) bytes() (sum int64) {
	for _, e := range a.entries {
		sum += e.layer.Usage.Size
	}
	return sum
}

// land makes the layer of e known to those who ask for it. It says no if that is too late.
func (a *ahead) land(e *aheadEntry, l landing) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return false
	}
	e.landing = l
	if a.timer == nil {
		a.timer = time.AfterFunc(a.keep, a.expire)
	}
	return true
}

// ended is called when the extraction of e has ended, one way or the other.
func (a *ahead) ended(e *aheadEntry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running--
	if e.layer.Number == 0 {
		a.entries = slices.DeleteFunc(a.entries, func(o *aheadEntry) bool { return o == e })
	}
	close(e.done)
	a.changed()
	a.working.Done()
}

// expire removes what nobody asked for, unless something is going on.
func (a *ahead) expire() {
	a.mu.Lock()
	var old []*aheadEntry
	idle := time.Since(a.touched)
	switch {
	case a.closed || len(a.entries) == 0:
		a.timer = nil
	case a.running > 0 || len(a.images) > 0 || idle < a.keep:
		a.timer = time.AfterFunc(max(a.keep-idle, a.keep/10), a.expire)
	default:
		old, a.timer = a.unused(), nil
		a.changed()
		a.working.Add(1)
		defer a.working.Done()
	}
	a.mu.Unlock()
	a.drop(old)
}

// close ends what is going on, and returns what nobody asked for.
func (a *ahead) close() []*aheadEntry {
	a.mu.Lock()
	a.closed = true
	if a.timer != nil {
		a.timer.Stop()
	}
	a.mu.Unlock()
	a.cancel()
	a.working.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.unused()
}

// unused takes out the layers that nobody has. The caller holds mu.
func (a *ahead) unused() (list []*aheadEntry) {
	a.entries = slices.DeleteFunc(a.entries, func(e *aheadEntry) bool {
		if e.used == nil {
			list = append(list, e)
		}
		return e.used == nil
	})
	return list
}

// sync makes the place of e survive a power cut, and with the same wait those of all others
// that are there by now.
func (a *ahead) sync(e *aheadEntry, sync func() error) error {
	a.mu.Lock()
	if e.synced {
		a.mu.Unlock()
		return nil
	}
	placed := []*aheadEntry{e}
	for _, other := range a.entries {
		if other.layer.Number != 0 {
			placed = append(placed, other)
		}
	}
	a.mu.Unlock()
	if err := sync(); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range placed {
		e.synced = true
	}
	return nil
}

// has says whether the layer of a blob was extracted.
func (a *ahead) has(blob digest.Digest) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.ContainsFunc(a.entries, func(e *aheadEntry) bool {
		return e.Blob.Digest == blob && e.layer.Number != 0
	})
}

// diffIDOf is the diffID of the layer that a chain ends with.
func (a *ahead) diffIDOf(chainID string) (digest.Digest, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.entries {
		if e.ChainID.String() == chainID {
			return e.DiffID, true
		}
	}
	return "", false
}

// take hands out the entry that match accepts, to be released or put back. If it is being
// extracted, it waits for that, for a moment. again: somebody else had it, and has released
// it now: what became of it is to be looked for.
func (a *ahead) take(ctx context.Context, match func(*aheadEntry) bool) (e *aheadEntry, again bool) {
	e, extracted, used := a.tryTake(match)
	switch {
	case extracted != nil:
		timer := time.NewTimer(aheadPatience)
		defer timer.Stop()
		select {
		case <-extracted:
			return nil, true
		case <-timer.C:
		case <-ctx.Done():
		}
		return nil, false
	case used != nil:
		select {
		case <-used:
			return nil, true
		case <-ctx.Done():
			return nil, false
		}
	}
	return e, false
}

// tryTake returns the entry, or what to wait for, or nothing.
func (a *ahead) tryTake(match func(*aheadEntry) bool) (e *aheadEntry, extracted, used <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.entries, match)
	if i < 0 {
		return nil, nil, nil
	}
	e = a.entries[i]
	if e.layer.Number == 0 {
		return nil, e.done, nil
	}
	if e.used != nil {
		return nil, nil, e.used
	}
	e.used = make(chan struct{})
	a.touched = time.Now()
	return e, nil, nil
}

// takeNext hands out the layer that stands on chain ref, if it was extracted and asks nothing
// of that.
func (a *ahead) takeNext(namespace, ref string) *aheadEntry {
	e, _, _ := a.tryTake(func(e *aheadEntry) bool {
		return e.layer.Number != 0 && e.used == nil && e.alone && e.Namespace == namespace && e.Below.String() == ref
	})
	return e
}

// release ends the use of what was handed out: it is recorded, or gone.
func (a *ahead) release(e *aheadEntry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.entries = slices.DeleteFunc(a.entries, func(o *aheadEntry) bool { return o == e })
	close(e.used)
	a.uses++
	a.changed()
}

// releases is how often something was released.
func (a *ahead) releases() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.uses
}

// putBack is for a layer that was handed out and not used. It says no if that is too late.
func (a *ahead) putBack(e *aheadEntry) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return false
	}
	close(e.used)
	e.used = nil
	return true
}
