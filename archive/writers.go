// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/strata-snapshotter/strata/layerindex"
	"golang.org/x/sys/unix"
)

// maxOpenFiles bounds the files whose content is on its way.
const maxOpenFiles = 64

// outFile is a file that was created and is being filled.
type outFile struct {
	fd      int
	path    string // in the layer
	entry   *entry
	created uint32 // the mode it was made with
	meta    *metadata
	writer  *writer
	failed  bool
	pending *writers
	// For the index: the checksum, and what makes it of a file of several parts.
	sum  uint64
	hash *layerindex.Hash
}

// chunk is content for a file, and its end.
type chunk struct {
	file   *outFile
	data   []byte
	offset int64
	from   *piece // held until it is written
	last   bool
	abort  bool // with last: there is no more, and it is not complete
}

// writers fill files at the same time as the stream is read and names are made.
// One file stays with one writer, which keeps its parts in order.
//
// A writer is made when there is a batch for it. Most layers are small: their one batch
// is written where it was put together, which spares waking somebody up for it.
type writers struct {
	list  []*writer
	next  int
	batch []chunk       // whole files, of one piece, not handed to a writer yet
	open  chan struct{} // a token for each file
	index *indexer      // nil: none is asked for
	wg    sync.WaitGroup

	mu   sync.Mutex
	idle *sync.Cond
	busy int // files not finished
	err  error
}

type writer struct {
	in chan []chunk
}

// maxBatch is how many small files go to a writer at a time: handing over one
// costs about as much as writing it.
const maxBatch = 16

// writerCount: creating names is the work of another goroutine and inflating of
// a third, so two keep two cores busy.
func writerCount() int { return min(max(runtime.NumCPU(), 2), 4) }

func newWriters() *writers {
	ws := &writers{open: make(chan struct{}, maxOpenFiles)}
	ws.idle = sync.NewCond(&ws.mu)
	return ws
}

func (ws *writers) newWriter() *writer {
	w := &writer{in: make(chan []chunk, 2*pieces)}
	ws.wg.Go(func() {
		for batch := range w.in {
			writeBatch(batch)
		}
	})
	return w
}

func writeBatch(batch []chunk) {
	for _, c := range batch {
		c.write()
	}
}

// start takes a file in. Its metadata is set once all is written.
func (ws *writers) start(fd int, e *entry, created uint32, meta *metadata) *outFile {
	ws.open <- struct{}{}
	ws.mu.Lock()
	ws.busy++
	ws.mu.Unlock()
	return &outFile{fd: fd, entry: e, created: created, meta: meta, pending: ws}
}

// turn returns the writer whose turn it is.
func (ws *writers) turn() *writer {
	if len(ws.list) < writerCount() {
		ws.list = append(ws.list, ws.newWriter())
	}
	ws.next = (ws.next + 1) % len(ws.list)
	return ws.list[ws.next]
}

// flush hands the files that were put aside to a writer.
func (ws *writers) flush() {
	if len(ws.batch) > 0 {
		ws.turn().in <- ws.batch
		ws.batch = nil
	}
}

// last is flush for when nothing more is to come at once.
func (ws *writers) last() {
	if len(ws.list) > 0 {
		ws.flush()
		return
	}
	writeBatch(ws.batch)
	ws.batch = nil
}

// whole queues a file with all of its content, which is in one piece or empty.
// Files of one piece are put aside until there are some: a batch that held several
// pieces could hold all there are, and nobody would go on.
func (f *outFile) whole(data []byte, offset int64, from *piece) {
	ws := f.pending
	if len(ws.batch) > 0 && from != nil && ws.batch[0].from != from {
		ws.flush()
	}
	if from != nil {
		from.hold()
	}
	if ws.batch == nil {
		ws.batch = make([]chunk, 0, maxBatch)
	}
	ws.batch = append(ws.batch, chunk{file: f, data: data, offset: offset, from: from, last: true})
	if len(ws.batch) == maxBatch {
		ws.flush()
	}
}

// put queues content. The piece it is part of is released once it is written.
func (f *outFile) put(data []byte, offset int64, from *piece, last bool) {
	from.hold()
	f.send(chunk{file: f, data: data, offset: offset, from: from, last: last})
}

func (f *outFile) send(c chunk) {
	if f.writer == nil {
		f.pending.flush()
		f.writer = f.pending.turn()
	}
	f.writer.in <- []chunk{c}
}

// abort ends a file whose content did not come to its end.
func (f *outFile) abort() {
	f.send(chunk{file: f, last: true, abort: true})
}

func (c chunk) write() {
	f := c.file
	var err error
	if !f.failed && len(c.data) > 0 {
		err = writeAt(f.fd, c.data, c.offset)
	}
	if f.pending.index != nil && !f.failed {
		f.add(c)
	}
	if c.from != nil {
		c.from.release()
	}
	if err == nil && c.last && !c.abort && !f.failed {
		err = f.complete(c.offset + int64(len(c.data)))
	}
	if err != nil {
		f.failed = true
		f.pending.fail(fmt.Errorf("file %s: %w", quote(f.entry.name), err))
	}
	if c.last {
		if err := unix.Close(f.fd); err != nil {
			f.pending.fail(fmt.Errorf("close file %s: %w", quote(f.entry.name), err))
		}
		f.pending.done()
	}
}

// complete gives a file that ends in a hole its size, and its metadata.
func (f *outFile) complete(end int64) error {
	if end < f.entry.size {
		if err := unix.Ftruncate(f.fd, f.entry.size); err != nil {
			return err
		}
	}
	if err := f.meta.file(f.fd, f.entry, f.created); err != nil || f.pending.index == nil {
		return err
	}
	return f.pending.index.file(f)
}

// add adds a chunk to the checksum, while it is in the processor's cache.
func (f *outFile) add(c chunk) {
	if f.hash == nil && c.last && f.entry.segments == nil {
		f.sum = layerindex.Sum(c.data)
		return
	}
	if f.hash == nil {
		f.hash = layerindex.NewHash()
		if f.entry.segments != nil {
			f.hash = layerindex.NewSparseHash()
		}
	}
	f.hash.Add(c.data, c.offset)
	if c.last {
		f.sum = f.hash.Sum64()
	}
}

func writeAt(fd int, b []byte, offset int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, offset)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		b, offset = b[n:], offset+int64(n)
	}
	return nil
}

func (ws *writers) fail(err error) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.err == nil {
		ws.err = err
	}
}

func (ws *writers) done() {
	<-ws.open
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.busy--; ws.busy == 0 {
		ws.idle.Broadcast()
	}
}

// failed returns the first error of a writer so far.
func (ws *writers) failed() error {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return ws.err
}

// settle waits until all files are finished: for what must come after them.
func (ws *writers) settle() error {
	ws.last()
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for ws.busy > 0 {
		ws.idle.Wait()
	}
	return ws.err
}

// end ends the writers, every file of which has got its last part, and returns why
// extracting ended: err, which may be the error of a writer already, or theirs.
func (ws *writers) end(err error) error {
	ws.last()
	for _, w := range ws.list {
		close(w.in)
	}
	ws.wg.Wait()
	if err != nil {
		return err
	}
	return ws.err
}
