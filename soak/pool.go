// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path"
	"strings"
	"sync"

	gcr "github.com/google/go-containerregistry/pkg/registry"

	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testimage"
)

// poolSeed makes the layers, which are the same in all runs.
const poolSeed = 20260101

// sizes are small: containers and restarts are what takes time here.
var sizes = layertest.Sizes{Small: 20, Medium: 120, Large: 500, Three: 30}

// pool is the images that a registry on this machine has.
type pool struct {
	images []*poolImage
	host   string
	server *http.Server
	mu     sync.Mutex
	trees  map[string]layertest.Tree // by the names of images
}

// poolImage is one of them.
type poolImage struct {
	name   string
	layers []layertest.Layer
	hasEtc bool // has the directories that all bases have
}

func newPool(ctx context.Context, bin string) (_ *pool, err error) {
	p := &pool{trees: map[string]layertest.Tree{}}
	if err := p.serve(ctx); err != nil {
		return nil, err
	}
	tools, err := toolsLayer(bin)
	if err != nil {
		return p, err
	}
	layers := map[string]layertest.Layer{}
	for name, l := range layertest.Shapes(rand.New(rand.NewPCG(poolSeed, 0)), sizes) {
		layers[name] = l
	}
	for i, chain := range layertest.Chains {
		img := &poolImage{name: fmt.Sprintf("image-%d", i), layers: []layertest.Layer{tools}, hasEtc: strings.HasPrefix(chain, "base")}
		for name := range strings.FieldsSeq(chain) {
			img.layers = append(img.layers, layers[name])
		}
		if err := p.push(img); err != nil {
			return p, fmt.Errorf("push %s: %w", img.name, err)
		}
		p.images = append(p.images, img)
	}
	return p, nil
}

func (p *pool) serve(ctx context.Context) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p.host = listener.Addr().String()
	p.server = &http.Server{Handler: gcr.New(gcr.Logger(log.New(io.Discard, "", 0)))} //nolint:gosec // for our own requests
	go func() { _ = p.server.Serve(listener) }()                                      // ends with close
	return nil
}

func (p *pool) close() error { return p.server.Close() }

func (p *pool) push(img *poolImage) error {
	blobs := make([][]byte, 0, len(img.layers))
	for _, l := range img.layers {
		blob, err := l.Tar()
		if err != nil {
			return err
		}
		blobs = append(blobs, blob)
	}
	built, err := testimage.BuildTars([]string{"/bin/sh"}, blobs...)
	if err != nil {
		return err
	}
	return testimage.Push(p.host+"/"+img.name+":1", built)
}

// toolsLayer is what a container needs to run a script, and where runc mounts.
func toolsLayer(bin string) (layertest.Layer, error) {
	busybox, err := testimage.FindBusybox(bin)
	if err != nil {
		return nil, err
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		return nil, err
	}
	l := layertest.Layer{layertest.Dir("bin"), layertest.File("bin/busybox", string(program)).Perm(0o755)}
	for _, applet := range []string{"cat", "chmod", "chown", "ln", "mkdir", "mv", "rm", "sh", "sleep", "test"} {
		l = append(l, layertest.Symlink("bin/"+applet, "busybox"))
	}
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp"} {
		l = append(l, layertest.Dir(dir))
	}
	return l, nil
}

// content is what an image or a container shows.
type content struct {
	base   *poolImage
	writes []layertest.Layer // by containers, in order
}

func (c content) with(l layertest.Layer) content {
	return content{c.base, append(c.writes[:len(c.writes):len(c.writes)], l)}
}

// tree is what has to be seen. When something was written is not known, nor when
// something was done to a directory by that.
func (p *pool) tree(c content) (layertest.Tree, error) {
	if len(c.writes) > 0 {
		return treeOf(append(c.base.layers[:len(c.base.layers):len(c.base.layers)], c.writes...), touchedBy(c.writes))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	tree, ok := p.trees[c.base.name]
	var err error
	if !ok {
		tree, err = treeOf(c.base.layers, []string{"/"})
		p.trees[c.base.name] = tree
	}
	return tree, err
}

func treeOf(layers []layertest.Layer, touched []string) (layertest.Tree, error) {
	model, err := layertest.Truth(layers)
	if err != nil {
		return nil, err
	}
	tree := model.Tree()
	tree.Touch(touched...)
	return tree, nil
}

func touchedBy(writes []layertest.Layer) []string {
	touched := []string{"/"}
	for _, l := range writes {
		for _, e := range l {
			name := path.Clean("/" + e.Name)
			touched = append(touched, name, path.Dir(name))
		}
	}
	return touched
}

// errNoTools is that the machine has not what it takes.
var errNoTools = errors.New("run hack/deps.sh test")

func checkTools(bin string) error {
	for _, name := range []string{"containerd", "containerd-shim-runc-v2"} {
		if _, err := os.Stat(path.Join(bin, name)); err != nil {
			return fmt.Errorf("%w: %w", err, errNoTools)
		}
	}
	return nil
}
