// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/strata-snapshotter/strata/imagestore"
)

func TestBars(t *testing.T) {
	begin := time.Unix(0, 0)
	at := func(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }
	d := digest.Digest("sha256:" + strings.Repeat("ab", 32))
	layers := []imagestore.Layer{{Digest: d, Size: 4_000_000}, {Digest: d, Size: 1000}, {Digest: d, Size: 1000}, {Digest: d, Size: 10}}
	var b barLines
	if got := b.render(80, 24, begin); len(got) != 0 {
		t.Errorf("before anything happened: %q", got)
	}
	layer := func(step imagestore.Step, index int, done, total int64) imagestore.Event {
		return imagestore.Event{Step: step, Image: "a/b:1", Digest: d, Index: index, Done: done, Total: total}
	}
	b.event(imagestore.Event{Step: imagestore.StepResolving, Image: "a/b:1"}, begin)
	expectLines(t, b.render(80, 24, begin), "a/b:1: asking the registry")
	b.event(imagestore.Event{Step: imagestore.StepUnpacking, Image: "a/b:1", Layers: layers, Total: 4_002_010}, begin)
	b.event(layer(imagestore.StepDownload, 1, 1_000_000, 4_000_000), begin) // it goes on from there
	b.event(layer(imagestore.StepDownload, 1, 2_000_000, 4_000_000), at(2))
	b.event(layer(imagestore.StepUnpack, 2, 500, 1000), begin)
	b.event(layer(imagestore.StepExists, 3, 1000, 1000), begin)
	b.event(layer(imagestore.StepUnpack, 3, 1, 1000), begin) // not again
	now := at(2)
	expectLines(t, b.render(120, 24, now),
		"abababababab downloading   [===============>              ]  50% 2MB/4MB  500kB/s",
		"abababababab unpacking     [===============>              ]  50% 500B/1kB  250B/s",
		"abababababab is here      ",
		"abababababab waiting      ",
		"1 of 4 layers              [=======>                      ]  25% a/b:1",
	)
	// Where there is no room, those that move; and never more than the width.
	narrow := b.render(40, 4, now)
	expectLines(t, narrow, "abababababab downloading   [===========", "abababababab unpacking     [===========", "1 of 4 layers              [=======>   ")
	b.event(layer(imagestore.StepLayerDone, 1, 4_000_000, 4_000_000), at(3))
	b.event(layer(imagestore.StepLayerDone, 2, 1000, 1000), at(3))
	b.event(layer(imagestore.StepLayerDone, 4, 10, 10), at(3))
	b.event(imagestore.Event{Step: imagestore.StepDone, Image: "a/b:1"}, at(3))
	lines := b.render(120, 24, at(4))
	expectLines(t, lines[:1], "abababababab unpacked      4MB")
	expectLines(t, lines[4:], "4 of 4 layers              a/b:1 in 4s")
}

func expectLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("lines\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
