// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"

	gcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// blobPath is where a registry has a blob.
var blobPath = regexp.MustCompile(`^/v2/.+/blobs/(sha256:[0-9a-f]{64})$`)

// registry serves images on the loopback interface, and counts what it serves of each
// blob. Blobs it serves itself: the library's registry refuses the ranges that
// containerd asks for when it resumes.
type registry struct {
	server *httptest.Server
	host   string
	others http.Handler // manifests

	mu     sync.Mutex
	blobs  map[digest.Digest]blob
	served map[digest.Digest]int64 // bytes
}

// blob is a file, or data if there is no path.
type blob struct {
	path string
	data []byte
}

// pullable is an image in the registry.
type pullable struct {
	ref    string
	layers []*layer
	top    string // chain id
}

func startRegistry() *registry {
	r := &registry{
		others: gcr.New(gcr.Logger(log.New(io.Discard, "", 0))),
		blobs:  map[digest.Digest]blob{},
		served: map[digest.Digest]int64{},
	}
	r.server = httptest.NewServer(r)
	r.host = strings.TrimPrefix(r.server.URL, "http://")
	return r
}

func (r *registry) close() { r.server.Close() }

// ServeHTTP implements http.Handler.
func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	match := blobPath.FindStringSubmatch(req.URL.Path)
	if match == nil || req.Method != http.MethodGet && req.Method != http.MethodHead {
		r.others.ServeHTTP(w, req)
		return
	}
	if err := r.serveBlob(w, req, digest.Digest(match[1])); err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
	}
}

func (r *registry) serveBlob(w http.ResponseWriter, req *http.Request, dgst digest.Digest) (err error) {
	r.mu.Lock()
	b, ok := r.blobs[dgst]
	r.mu.Unlock()
	if !ok {
		return fmt.Errorf("no blob %s", dgst)
	}
	var content io.ReadSeeker = bytes.NewReader(b.data)
	if b.path != "" {
		f, err := os.Open(b.path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // only read from
		content = f
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", dgst.String())
	http.ServeContent(&countingWriter{w, func(n int) { r.count(dgst, n) }}, req, "", time.Time{}, content)
	return nil
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

func (r *registry) count(dgst digest.Digest, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.served[dgst] += int64(n)
}

// reset forgets what was served.
func (r *registry) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.served)
}

// servedOf is how many bytes of these layers were served since reset.
func (r *registry) servedOf(layers []*layer) (sum int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range layers {
		sum += r.served[l.desc.Digest]
	}
	return sum
}

// publish makes an image of layers, lowest first.
func (r *registry) publish(name string, layers []*layer) (*pullable, error) {
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	config := ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		RootFS:   ocispec.RootFS{Type: "layers"},
		Author:   name, // no two images have one config
	}
	for _, l := range layers {
		manifest.Layers = append(manifest.Layers, l.desc)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.diffID)
		r.add(l.desc.Digest, blob{path: l.path})
	}
	data, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	manifest.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(data), Size: int64(len(data))}
	r.add(manifest.Config.Digest, blob{data: data})
	p := &pullable{ref: r.host + "/" + name + ":1", layers: layers, top: identity.ChainID(config.RootFS.DiffIDs).String()}
	return p, r.put(name, manifest)
}

func (r *registry) add(dgst digest.Digest, b blob) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs[dgst] = b
}

func (r *registry) put(name string, manifest ocispec.Manifest) (err error) {
	data, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(http.MethodPut, r.server.URL+"/v2/"+name+"/manifests/1", bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", manifest.MediaType)
	resp, err := r.server.Client().Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusCreated {
		return fmt.Errorf("publishing %s: %s", name, resp.Status)
	}
	return nil
}
