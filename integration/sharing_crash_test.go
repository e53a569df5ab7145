// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/strata-snapshotter/strata/internal/layertest"
)

// The daemon is killed at any moment of pulls of images that share layers. Afterwards
// the store is whole, the same pulls succeed, and nothing is there twice.
func TestSharingAfterCrashes(t *testing.T) {
	needStrata(t)
	const rounds = 5
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	m := newMeter(t)
	shared := heavies("shared", 3, 32<<10)
	needy := layertest.Layer{layertest.File("implicit/dir/file", "text")}
	var images []published
	for i := range 3 {
		base := layertest.Layer{layertest.Dir("implicit").Perm(layertest.Octal(0o700 + i)), layertest.File("implicit/base", fmt.Sprint(i))}
		layers := append([]layertest.Layer{base}, shared[i:]...)
		layers = append(layers, shared[:i]...)
		images = append(images, m.publish(fmt.Sprintf("crash-%d", i), append(layers, needy)...))
	}
	n := newNode(t, settings{unpacks: 3})
	for round := range rounds {
		n.crashDuringPulls(images, time.Duration(random.IntN(250))*time.Millisecond)
		for _, p := range images {
			n.expectTree(n.ctx(), n.pull(n.ctx(), p.ref), p)
		}
		n.report("collecting garbage", n.collect(n.ctx()))
		n.expectLayers(3 + 3 + 1 + 3) // bases, shared, needy, and a patch on each base
		n.checkStore()
		for _, p := range images {
			n.deleteImage(n.ctx(), p.ref)
		}
		if round%2 == 0 {
			n.expectLayers(0)
		}
		n.checkStore()
	}
}

// crashDuringPulls kills the daemon some time after pulls of all images began, and
// starts it again.
func (n *node) crashDuringPulls(images []published, after time.Duration) {
	n.t.Helper()
	var pulls []*pulling
	for _, p := range images {
		pulls = append(pulls, n.startPull(n.ctx(), p.ref))
	}
	time.Sleep(after)
	n.killStrata()
	n.startStrata()
	n.waitSnapshotter()
	for i, p := range pulls {
		if _, err := p.wait(n.t); err != nil {
			n.t.Logf("%s, killed after %s: %v", images[i].ref, after, err)
		}
	}
	n.report("collecting garbage", n.collect(n.ctx()))
	n.checkStore()
}
