// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/archive"
)

// AheadLayer is a layer of an image that containerd is unpacking, before it asks for it.
type AheadLayer struct {
	Namespace       string // which has the blob
	Blob            ocispec.Descriptor
	DiffID, ChainID digest.Digest // what the image says
	Below           digest.Digest // chainID of the layers below, empty for none
}

// Ahead keeps layers that were extracted before they were asked for.
type Ahead interface {
	// UnpackAhead is how many layers it takes at once; 0 is none.
	UnpackAhead() int
	// Extracts says whether mounts are those of a snapshot that containerd made to unpack a
	// layer of an image into it.
	Extracts(mounts []mount.Mount) bool
	// Follow says that an image with these chains is being unpacked, and end that all of it
	// is, or why no longer. giveUp is called if containerd takes back one of its extractions.
	Follow(namespace string, chainIDs []digest.Digest, giveUp func()) (end func(error))
	// Ahead waits until there is room for a layer and has it extracted into an empty
	// directory, if it is not there already.
	Ahead(ctx context.Context, l AheadLayer, extract func(context.Context, *os.File, archive.Options) (archive.Result, error)) error
}

const (
	// blobEvery is how often is looked for blobs that are being fetched, of at most
	// blobsAtOnce of the lowest layers.
	blobEvery   = 200 * time.Millisecond
	blobsAtOnce = 8
	// blobPatience is how long is waited for the next one. After that the next Apply of the
	// image begins anew.
	blobPatience = 10 * time.Minute
	// maxPlans bounds the images that are looked after at once.
	maxPlans = 16
)

var (
	// errUnwanted: containerd came to a layer itself, meanwhile.
	errUnwanted = errors.New("the layer was asked for")
	// errNoMore: nothing is left to do of an image.
	errNoMore = errors.New("all layers are there, or on their way")
)

// foresight knows which images are being unpacked: who applies a layer will apply those
// above it.
type foresight struct {
	d      *Differ
	keep   Ahead
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex
	closed  bool
	plans   []*plan
	looking map[string]*search // by namespace
	working sync.WaitGroup
}

// search is for the image of a layer. Guarded by foresight.mu.
type search struct {
	applied []digest.Digest // that layer's blob, and those that were asked for meanwhile
	failed  bool            // one of them did
}

// plan is the layers of one image.
type plan struct {
	namespace string
	layers    []AheadLayer
	cancel    context.CancelFunc
	unfollow  func(error)

	// What follows is guarded by foresight.mu.
	asked   int    // the first layer above those that containerd asked for
	taken   []bool // layers that a worker has
	workers int
}

// newForesight returns nil where nothing is extracted ahead.
func newForesight(d *Differ, keep Ahead) *foresight {
	if keep == nil || keep.UnpackAhead() == 0 {
		return nil
	}
	f := &foresight{d: d, keep: keep, looking: map[string]*search{}}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

// close ends what is being done, and waits for that.
func (f *foresight) close() {
	if f == nil {
		return
	}
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.cancel()
	f.working.Wait()
}

// asked is told of each Apply, whose caller has the namespace, and returns what is to be told
// of its end.
func (f *foresight) asked(namespace string, blob digest.Digest, mounts []mount.Mount) (ended func(error)) {
	if f == nil || !f.keep.Extracts(mounts) {
		return func(error) {}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	known := false
	for _, p := range f.plans {
		if i := p.index(namespace, blob); i >= 0 {
			p.asked, known = max(p.asked, i+1), true
		}
	}
	if s := f.looking[namespace]; s != nil {
		s.applied = append(s.applied, blob)
	} else if !known && !f.closed && len(f.plans) < maxPlans {
		f.looking[namespace] = &search{applied: []digest.Digest{blob}}
		f.working.Add(1)
		go f.look(namespace, blob)
	}
	return func(err error) { f.ended(namespace, blob, err) }
}

// ended stops looking after an image of which a layer failed.
func (f *foresight) ended(namespace string, blob digest.Digest, err error) {
	if err == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.looking[namespace]; s != nil && slices.Contains(s.applied, blob) {
		s.failed = true
	}
	for _, p := range f.plans {
		if p.index(namespace, blob) >= 0 {
			p.cancel()
		}
	}
}

func (p *plan) index(namespace string, blob digest.Digest) int {
	if p.namespace != namespace {
		return -1
	}
	return slices.IndexFunc(p.layers, func(l AheadLayer) bool { return l.Blob.Digest == blob })
}

// look finds the image that a blob is a layer of, and begins with the layers above it.
func (f *foresight) look(namespace string, blob digest.Digest) {
	defer f.working.Done()
	ctx, cancel := context.WithCancel(namespaces.WithNamespace(f.ctx, namespace))
	layers, err := imageOf(ctx, f.d.cfg.Content, namespace, blob)
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.looking[namespace]
	delete(f.looking, namespace)
	p := &plan{namespace: namespace, layers: layers, taken: make([]bool, len(layers)), cancel: cancel, workers: f.keep.UnpackAhead() + 1}
	for _, blob := range s.applied {
		p.asked = max(p.asked, p.index(namespace, blob)+1)
	}
	if err != nil || s.failed || p.asked == 0 || p.asked == len(layers) || f.closed {
		cancel()
		log.G(ctx).WithError(err).WithField("digest", blob).Trace("no layers to unpack ahead")
		return
	}
	p.unfollow = f.keep.Follow(namespace, p.chainIDs(), cancel)
	f.plans = append(f.plans, p)
	f.working.Add(p.workers)
	for range p.workers {
		go f.work(ctx, p)
	}
}

func (p *plan) chainIDs() []digest.Digest {
	ids := make([]digest.Digest, len(p.layers))
	for i, l := range p.layers {
		ids[i] = l.ChainID
	}
	return ids
}

// work extracts layers of p until there are none, or one fails. Whoever asks for that one is
// told why.
func (f *foresight) work(ctx context.Context, p *plan) {
	defer f.working.Done()
	for {
		i, err := f.next(ctx, p)
		if err == nil {
			err = f.unpack(ctx, p, i)
		}
		if err == nil || errors.Is(err, errUnwanted) {
			continue
		}
		if !errors.Is(err, errNoMore) {
			if ctx.Err() == nil {
				log.G(ctx).WithError(err).Debug("layers are not unpacked ahead")
			}
			p.cancel()
		}
		break
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.workers--; p.workers == 0 {
		p.unfollow(ctx.Err())
		p.cancel()
		f.plans = slices.DeleteFunc(f.plans, func(o *plan) bool { return o == p })
	}
}

// next takes the lowest layer whose blob is there. Where none is, it waits until one has been
// fetched.
func (f *foresight) next(ctx context.Context, p *plan) (int, error) {
	ticker := time.NewTicker(blobEvery)
	defer ticker.Stop()
	for end := time.Now().Add(blobPatience); ; {
		more := false
		for i, missing := 0, 0; i < len(p.layers) && missing < blobsAtOnce; i++ {
			if !f.take(p, i) {
				continue
			}
			err := f.d.checkBlob(ctx, p.layers[i].Blob)
			if !errdefs.IsNotFound(err) {
				return i, err
			}
			more = true
			missing++
			f.giveBack(p, i)
		}
		if !more {
			return 0, errNoMore
		}
		if time.Now().After(end) {
			return 0, fmt.Errorf("no further layer was fetched within %s: %w", blobPatience, errdefs.ErrUnavailable)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// take takes layer i, unless another worker has, or containerd came to it.
func (f *foresight) take(p *plan, i int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.taken[i] || i < p.asked {
		return false
	}
	p.taken[i] = true
	return true
}

func (f *foresight) giveBack(p *plan, i int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p.taken[i] = false
}

// unpack extracts layer i.
func (f *foresight) unpack(ctx context.Context, p *plan, i int) error {
	l := p.layers[i]
	packing, err := packingOf(l.Blob.MediaType)
	if err != nil {
		return err
	}
	return f.keep.Ahead(ctx, l, func(ctx context.Context, dir *os.File, opts archive.Options) (_ archive.Result, err error) {
		// What containerd did itself need not be found under the diffID: it may have been
		// extracted onto the layers below.
		if f.passed(p, i) {
			return archive.Result{}, errUnwanted
		}
		blob, err := f.d.openLayer(ctx, l.Blob, packing, nil)
		if err != nil {
			return archive.Result{}, err
		}
		defer func() { err = errors.Join(err, blob.Close()) }()
		return run(ctx, archive.Apply, blob, dir, opts)
	})
}

// passed says whether containerd asked for layer i, or one above it.
func (f *foresight) passed(p *plan, i int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return p.asked > i
}
