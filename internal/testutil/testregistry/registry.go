// SPDX-License-Identifier: Apache-2.0

// Package testregistry is a registry on loopback for tests: a real one, in memory, that
// counts what it is asked and can be told to fail as registries do.
//
// Only tests import it.
package testregistry

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Request is one that the registry was sent.
type Request struct {
	Method, Path string
	// Range is that header: which part of a blob was asked for.
	Range string
}

// Blob says whether a layer or configuration was asked for.
func (r Request) Blob() bool {
	return r.Method == http.MethodGet && strings.Contains(r.Path, "/blobs/")
}

// Faults are how a registry fails. The zero value is one that works.
type Faults struct {
	// CutAt ends the connection at that offset of each blob, however often a client asks
	// for the rest; 0 does not.
	CutAt int64
	// Refuse is answered to everything, a status; 0 does not.
	Refuse int
	// Corrupt changes the last byte of each blob of more than 4096 bytes.
	Corrupt bool
	// Delay is the pause after each 64 KiB of a blob.
	Delay time.Duration
	// Hold keeps every blob back until it is closed.
	Hold <-chan struct{}
	// User and Password are wanted, if they are set.
	User, Password string
}

// Registry serves until its test ends.
type Registry struct {
	// Host is its name in references, 127.0.0.1:PORT.
	Host string

	inner  http.Handler
	server *httptest.Server

	mu       sync.Mutex
	faults   Faults
	requests []Request
}

// Start starts a registry.
func Start(t testing.TB) *Registry {
	t.Helper()
	r := &Registry{inner: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	r.server = httptest.NewServer(r)
	t.Cleanup(r.server.Close)
	r.Host = strings.TrimPrefix(r.server.URL, "http://")
	return r
}

// Fail makes the registry fail like that from now on.
func (r *Registry) Fail(f Faults) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = f
}

// Stop refuses connections from now on.
func (r *Registry) Stop() { r.server.Close() }

// Requests returns what was asked since the last call.
func (r *Registry) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	requests := r.requests
	r.requests = nil
	return requests
}

// Blobs returns those of Requests that ask for a blob.
func (r *Registry) Blobs() (blobs []Request) {
	for _, request := range r.Requests() {
		if request.Blob() {
			blobs = append(blobs, request)
		}
	}
	return blobs
}

// Ref is the reference of a repository with a tag, "name:tag", in this registry.
func (r *Registry) Ref(repository string) string { return r.Host + "/" + repository }

// Push uploads an image, and forgets the requests of that.
func (r *Registry) Push(t testing.TB, repository string, img v1.Image) string {
	t.Helper()
	return r.push(t, repository, func(ref name.Reference) error { return remote.Write(ref, img) })
}

// PushIndex uploads an index, and forgets the requests of that.
func (r *Registry) PushIndex(t testing.TB, repository string, index v1.ImageIndex) string {
	t.Helper()
	return r.push(t, repository, func(ref name.Reference) error { return remote.WriteIndex(ref, index) })
}

func (r *Registry) push(t testing.TB, repository string, write func(name.Reference) error) string {
	t.Helper()
	ref, err := name.ParseReference(r.Ref(repository))
	if err == nil {
		err = write(ref)
	}
	if err != nil {
		t.Fatalf("push %s: %v", repository, err)
	}
	r.Requests()
	return r.Ref(repository)
}

// ServeHTTP implements http.Handler.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	faults := r.faults
	request := Request{Method: req.Method, Path: req.URL.Path, Range: req.Header.Get("Range")}
	r.requests = append(r.requests, request)
	r.mu.Unlock()
	if user, password, _ := req.BasicAuth(); user != faults.User || password != faults.Password {
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		http.Error(w, "who are you", http.StatusUnauthorized)
		return
	}
	if faults.Refuse != 0 {
		http.Error(w, "out of order", faults.Refuse)
		return
	}
	if request.Blob() {
		if faults.Hold != nil {
			<-faults.Hold
		}
		r.serveBlob(w, req, faults)
		return
	}
	r.inner.ServeHTTP(w, req)
}

// serveBlob gives a blob with everything that HTTP knows of parts.
func (r *Registry) serveBlob(w http.ResponseWriter, req *http.Request, faults Faults) {
	whole := req.Clone(req.Context())
	whole.Header.Del("Range")
	found := httptest.NewRecorder()
	r.inner.ServeHTTP(found, whole)
	if found.Code != http.StatusOK {
		w.WriteHeader(found.Code)
		_, _ = w.Write(found.Body.Bytes())
		return
	}
	data := found.Body.Bytes()
	if faults.Corrupt && len(data) > 4096 {
		data = bytes.Clone(data)
		data[len(data)-1] ^= 1
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(&limited{ResponseWriter: w, faults: faults, at: start(req)}, req, "", time.Time{}, bytes.NewReader(data))
}

// limited is a connection that breaks, or is slow.
type limited struct {
	http.ResponseWriter
	faults Faults
	at     int64 // in the blob
}

// start is where the part of a blob begins that is asked for.
func start(req *http.Request) int64 {
	var at int64
	if _, err := fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-", &at); err != nil {
		return 0
	}
	return at
}

func (l *limited) Write(p []byte) (n int, err error) {
	const piece = 64 << 10
	for len(p) > 0 {
		part := p[:min(len(p), piece)]
		if cut := l.faults.CutAt; cut > 0 && l.at+int64(len(part)) > cut {
			part = part[:max(0, cut-l.at)]
			_, _ = l.ResponseWriter.Write(part)
			_ = http.NewResponseController(l.ResponseWriter).Flush() // it is to arrive before the end does
			panic(http.ErrAbortHandler)
		}
		written, err := l.ResponseWriter.Write(part)
		n, l.at, p = n+written, l.at+int64(written), p[len(part):]
		if err != nil {
			return n, err
		}
		if l.faults.Delay > 0 {
			_ = http.NewResponseController(l.ResponseWriter).Flush()
			time.Sleep(l.faults.Delay)
		}
	}
	return n, nil
}
