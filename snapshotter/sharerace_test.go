// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// Many clients pull, view and remove images of few layers, so that all they do meets: the
// store is in order at the end, and what is left shows what it should.
func TestSharingUnderLoad(t *testing.T) {
	s, l := openAhead(t, Config{Durability: DurabilityNone})
	const clients, rounds = 6, 20
	stop := make(chan struct{})
	var sweeper, wg sync.WaitGroup
	sweeper.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := s.Cleanup(ctx); err != nil {
				t.Errorf("cleanup: %v", err)
			}
		}
	})
	for i := range clients {
		r := rand.New(rand.NewPCG(7, uint64(i)))
		wg.Go(func() {
			for range rounds {
				client(t, s, l, r)
			}
		})
	}
	wg.Wait()
	close(stop)
	sweeper.Wait()
	s.dropAhead(ctx, s.ahead.close())
	checkStore(t, s)
	checkImages(t, s, l)
	s = reopen(t, s)
	checkStore(t, s)
	emptyOut(t, s)
	if n := layerDirs(t, s); n != 0 {
		t.Errorf("%d layers of nobody", n)
	}
}

// client pulls an image, looks at it, and mostly removes what it made of it. Others may
// stand on that by then, or have removed it, where it was found and not made.
func client(t *testing.T, s *Snapshotter, l library, r *rand.Rand) {
	image := make([]int, 1+r.IntN(4))
	for i := range image {
		image[i] = r.IntN(len(pieces))
	}
	if r.IntN(2) == 0 {
		next := l.upcoming(image...)
		if err := s.Ahead(ctx, next, l.extractAlone(next.Blob)); err != nil {
			t.Errorf("ahead %v: %v", image, err)
		}
	}
	made, err := l.pull(t, s, image, way(r.IntN(int(ways))))
	if err == nil {
		err = l.check(s, made[len(made)-1], image)
	}
	if err != nil && !goneMeanwhile(err) {
		t.Errorf("image %v: %v", image, err)
	}
	if r.IntN(3) == 0 {
		return
	}
	for _, name := range slices.Backward(made) {
		if err := s.Remove(ctx, name); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
			t.Errorf("remove %s: %v", name, err)
		}
	}
}

// goneMeanwhile says whether an error is what a client that uses a snapshot which another
// removes has to expect.
func goneMeanwhile(err error) bool { return errdefs.IsNotFound(err) || errdefs.IsUnavailable(err) }

// checkImages looks at every image that is there.
func checkImages(t *testing.T, s *Snapshotter, l library) {
	t.Helper()
	todo := map[string][]int{}
	err := s.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind != snapshots.KindCommitted || info.Labels[imageLabel] == "" {
			return nil
		}
		image := []int{}
		for _, word := range strings.Fields(info.Labels[imageLabel]) {
			i, err := strconv.Atoi(word)
			if err != nil {
				return fmt.Errorf("%s: %w", info.Name, err)
			}
			image = append(image, i)
		}
		todo[info.Name] = image
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for name, image := range todo {
		if err := l.check(s, name, image); err != nil {
			t.Error(err)
		}
	}
}

// emptyOut removes all snapshots, children first.
func emptyOut(t *testing.T, s *Snapshotter) {
	t.Helper()
	for left := true; left; {
		left = false
		err := s.Walk(ctx, func(ctx context.Context, info snapshots.Info) error {
			err := s.Remove(ctx, info.Name)
			if errdefs.IsFailedPrecondition(err) {
				left, err = true, nil
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Cleanup(ctx); err != nil {
		t.Fatal(err)
	}
}
