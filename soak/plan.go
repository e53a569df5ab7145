// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/strata-snapshotter/strata/internal/layertest"
)

// The kinds of operations.
const (
	opPull            = "pull"
	opRun             = "run"
	opExec            = "exec"
	opLook            = "look at a container"
	opLookImage       = "look at an image"
	opCommit          = "commit"
	opRemoveContainer = "remove a container"
	opRemoveImage     = "remove an image"
	opCollect         = "collect"
)

// The ways to pull.
const (
	byTransfer = iota // containerd fetches and unpacks, several layers at a time
	byClient          // the client fetches and unpacks, one layer after another
	inTwoSteps        // first all is fetched, then unpacked
	ways
)

// op is one operation.
type op struct {
	kind      string
	image     *image // to pull, run, make or remove
	container *container
	write     layertest.Layer // of run and exec
	seen      *layertest.Entry
	way       int
	look      bool // afterwards
	wait      bool // for containerd to have collected what was removed
}

func (o op) String() string {
	s := o.kind
	if o.image != nil {
		s += " " + o.image.ref
	}
	if o.container != nil {
		s += " " + o.container.id
	}
	return fmt.Sprintf("%s %d %t %t %d entries", s, o.way, o.look, o.wait, len(o.write))
}

// image is one that a client has, under a name that nobody else uses.
type image struct {
	ref     string
	content content
	pool    *poolImage // nil: made of a container
}

// container is one that a client has.
type container struct {
	id      string
	image   *image
	content content
	idle    bool // it runs until it is killed
}

// The most that a client has at a time.
const (
	mostImages     = 5
	mostContainers = 3
	mostWrites     = 6
)

// planner says what a client does. It needs nothing but its seed: operations that fail
// are tried until they don't.
type planner struct {
	*rand.Rand
	id         int
	pool       []*poolImage
	host       string
	images     []*image
	containers []*container
	made       int
}

func newPlanner(seed uint64, id int, p *pool) *planner {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	binary.LittleEndian.PutUint64(key[8:], uint64(id))
	return &planner{Rand: rand.New(rand.NewChaCha8(key)), id: id, pool: p.images, host: p.host}
}

// next is the next operation, and takes it for done.
func (p *planner) next() op {
	switch n := p.IntN(100); {
	case len(p.images) == 0 || n < 20 && len(p.images) < mostImages:
		return p.pull()
	case n < 20 || n >= 92 && n < 97:
		return p.removeImage()
	case (n < 45 || len(p.containers) == 0) && len(p.containers) < mostContainers:
		return p.run()
	case n < 60:
		return p.exec()
	case n < 70:
		return op{kind: opLook, container: p.stop(p.pickContainer())}
	case n < 75:
		return op{kind: opLookImage, image: p.images[p.IntN(len(p.images))]}
	case n < 84 && len(p.images) < mostImages:
		return p.commit()
	case n >= 97:
		return op{kind: opCollect}
	}
	return p.removeContainer()
}

func (p *planner) name(what string) string {
	p.made++
	return fmt.Sprintf("%s-%d-%d", what, p.id, p.made)
}

func (p *planner) pull() op {
	from := p.pool[p.IntN(len(p.pool))]
	img := &image{ref: p.host + "/" + from.name + ":" + p.name("of"), pool: from, content: content{base: from}}
	p.images = append(p.images, img)
	return op{kind: opPull, image: img, way: p.IntN(ways), look: p.IntN(3) == 0}
}

func (p *planner) removeImage() op {
	i := p.IntN(len(p.images))
	img := p.images[i]
	p.images = slices.Delete(p.images, i, i+1)
	return op{kind: opRemoveImage, image: img, wait: p.IntN(2) == 0}
}

func (p *planner) run() op {
	img := p.images[p.IntN(len(p.images))]
	c := &container{id: p.name("container"), image: img, idle: p.IntN(2) == 0, content: img.content}
	p.containers = append(p.containers, c)
	return p.write(op{kind: opRun, image: img, container: c})
}

// exec writes in a container, if one that runs is found.
func (p *planner) exec() op {
	c := p.pickContainer()
	if !c.idle {
		return p.removeContainer()
	}
	if len(c.content.writes) >= mostWrites {
		return op{kind: opLook, container: p.stop(c)}
	}
	o := op{kind: opExec, container: c}
	last := c.content.writes[len(c.content.writes)-1]
	if i := slices.IndexFunc(last, func(e layertest.Entry) bool { return e.Type == layertest.TypeFile }); i >= 0 {
		o.seen = &last[i]
	}
	return p.write(o)
}

func (p *planner) write(o op) op {
	o.write = p.written(p.name("w"), o.container.content.base.hasEtc)
	o.container.content = o.container.content.with(o.write)
	return o
}

func (p *planner) pickContainer() *container { return p.containers[p.IntN(len(p.containers))] }

// stop is part of looking at a container: two mounts can't share what is written to.
func (p *planner) stop(c *container) *container {
	c.idle = false
	return c
}

func (p *planner) commit() op {
	c := p.pickContainer()
	// The manifest of the image that it began with says what is below.
	if len(c.content.writes) >= mostWrites || !slices.Contains(p.images, c.image) {
		return op{kind: opLook, container: p.stop(c)}
	}
	img := &image{ref: "strata.test/" + p.name("commit") + ":1", content: c.content}
	p.images = append(p.images, img)
	return op{kind: opCommit, image: img, container: c, look: p.IntN(3) > 0}
}

func (p *planner) removeContainer() op {
	if len(p.containers) == 0 {
		return op{kind: opCollect}
	}
	i := p.IntN(len(p.containers))
	c := p.containers[i]
	p.containers = slices.Delete(p.containers, i, i+1)
	return op{kind: opRemoveContainer, container: c}
}
