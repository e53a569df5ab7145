// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	gcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/go-digest"

	"github.com/strata-snapshotter/strata/internal/layertest"
)

// blobPath is where a registry has a blob.
var blobPath = regexp.MustCompile(`^/v2/.+/blobs/(sha256:[0-9a-f]{64})$`)

// meter is a registry that counts the bytes it serves of each blob, and can keep one
// back.
type meter struct {
	t      *testing.T
	host   string
	others http.Handler
	done   chan struct{} // closed at the end of the test

	mu      sync.Mutex
	served  map[digest.Digest]int64
	answers map[digest.Digest]http.HandlerFunc // instead of the blob
}

func newMeter(t *testing.T) *meter {
	t.Helper()
	m := &meter{
		t: t, others: gcr.New(gcr.Logger(log.New(io.Discard, "", 0))), done: make(chan struct{}),
		served: map[digest.Digest]int64{}, answers: map[digest.Digest]http.HandlerFunc{},
	}
	server := httptest.NewServer(m)
	t.Cleanup(func() { // requests that are held would be waited for
		close(m.done)
		server.Close()
	})
	m.host = strings.TrimPrefix(server.URL, "http://")
	return m
}

// ServeHTTP implements http.Handler.
func (m *meter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	match := blobPath.FindStringSubmatch(r.URL.Path)
	if match == nil || r.Method != http.MethodGet {
		m.others.ServeHTTP(w, r)
		return
	}
	blob := digest.Digest(match[1])
	m.mu.Lock()
	answer := m.answers[blob]
	m.mu.Unlock()
	if answer == nil {
		answer = m.others.ServeHTTP
	}
	answer(&countingWriter{w, func(n int) { m.count(blob, n) }}, r)
}

// countingWriter has no ReadFrom, so that every byte passes Write.
type countingWriter struct {
	http.ResponseWriter
	count func(int)
}

func (w *countingWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.count(n)
	return n, err
}

func (m *meter) count(blob digest.Digest, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.served[blob] += int64(n)
}

// reset forgets what was served.
func (m *meter) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.served)
}

// servedOf is how many bytes of these blobs were served since reset.
func (m *meter) servedOf(blobs []digest.Digest) (sum int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range blobs {
		sum += m.served[b]
	}
	return sum
}

// answer has requests for a blob answered by h; nil is the registry again.
func (m *meter) answer(blob digest.Digest, h http.HandlerFunc) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answers[blob] = h
}

// hold keeps the blobs back until release is called. asked has a value for each
// request that came for one.
func (m *meter) hold(blobs ...digest.Digest) (asked <-chan digest.Digest, release func()) {
	requests, free := make(chan digest.Digest, 100), make(chan struct{})
	for _, blob := range blobs {
		m.answer(blob, func(w http.ResponseWriter, r *http.Request) {
			requests <- blob
			select {
			case <-r.Context().Done():
			case <-m.done:
			case <-free:
				m.others.ServeHTTP(w, r)
			}
		})
	}
	return requests, sync.OnceFunc(func() {
		close(free)
		for _, blob := range blobs {
			m.answer(blob, nil)
		}
	})
}

// await waits for a request of hold.
func (m *meter) await(asked <-chan digest.Digest) {
	m.t.Helper()
	select {
	case <-asked:
	case <-time.After(patience):
		m.t.Fatal("nobody asked for the blob")
	}
}

// published is an image in a meter.
type published struct {
	ref     string
	img     v1.Image
	layers  []layertest.Layer
	blobs   []digest.Digest // of the layers, lowest first
	diffIDs []digest.Digest
}

// publish puts an image of the layers, lowest first, into the registry.
func (m *meter) publish(name string, layers ...layertest.Layer) published {
	m.t.Helper()
	return m.publishImage(name, imageOf(m.t, layers), layers...)
}

func (m *meter) publishImage(name string, img v1.Image, layers ...layertest.Layer) published {
	m.t.Helper()
	p := published{ref: m.host + "/" + name + ":1", img: img, layers: layers}
	push(m.t, p.ref, img)
	list, err := img.Layers()
	if err != nil {
		m.t.Fatal(err)
	}
	for _, l := range list {
		blob, err := l.Digest()
		if err != nil {
			m.t.Fatal(err)
		}
		diffID, err := l.DiffID()
		if err != nil {
			m.t.Fatal(err)
		}
		p.blobs = append(p.blobs, digest.Digest(blob.String()))
		p.diffIDs = append(p.diffIDs, digest.Digest(diffID.String()))
	}
	return p
}

// heavy is a layer with a directory of its own and size bytes that don't compress
// well, the same every time.
func heavy(name string, size int) layertest.Layer {
	random := rand.New(rand.NewPCG(uint64(len(name)), uint64(name[len(name)-1])))
	data := make([]byte, size)
	for i := range data {
		data[i] = ' ' + byte(random.UintN(90))
	}
	return layertest.Layer{
		layertest.Dir(name), layertest.File(name+"/data", string(data)), layertest.File(name+"/name", name),
		layertest.Dir("common"), layertest.File("common/last", name),
	}
}

// heavies are count of them.
func heavies(name string, count, size int) (layers []layertest.Layer) {
	for i := range count {
		layers = append(layers, heavy(fmt.Sprintf("%s-%c", name, 'a'+i), size))
	}
	return layers
}
