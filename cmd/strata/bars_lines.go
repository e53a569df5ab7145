// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/strata-snapshotter/strata/imagestore"
)

// Widths of parts of a line.
const (
	barWidth   = 30
	labelWidth = 26 // of a short digest and the longest word behind it
)

// barLines is what the bars show: a line for each layer of an image, and one for all.
type barLines struct {
	title  string
	layers []barLine
	total  int64
	begun  time.Time
	done   bool
}

// barLine is a layer.
type barLine struct {
	digest   digest.Digest
	step     imagestore.Step // "" while it waits
	at, size int64
	begun    time.Time // of the step
	from     int64     // where the step began: a download that goes on does not begin at 0
}

func (b *barLines) event(e imagestore.Event, now time.Time) {
	switch {
	case e.Step == imagestore.StepResolving:
		*b = barLines{title: printable(e.Image) + ": asking the registry"}
	case e.Step == imagestore.StepReading:
		*b = barLines{title: printable(e.Image) + ": reading"}
	case e.Step == imagestore.StepComplete:
		*b = barLines{title: printable(e.Image) + ": is here", done: true}
	case e.Step == imagestore.StepUnpacking:
		*b = barLines{title: printable(e.Image), total: e.Total, begun: now, layers: make([]barLine, len(e.Layers))}
		for i, l := range e.Layers {
			b.layers[i] = barLine{digest: l.Digest, size: l.Size}
		}
	case e.Step == imagestore.StepDone:
		b.done = true
	case e.Index > 0 && e.Index <= len(b.layers):
		b.layers[e.Index-1].event(e, now)
	}
}

func (l *barLine) event(e imagestore.Event, now time.Time) {
	if l.finished() {
		return // the unpacker tells of a layer that was staged twice
	}
	if l.step != e.Step {
		l.step, l.begun, l.from = e.Step, now, 0
		if e.Step == imagestore.StepDownload {
			l.from = e.Done
		}
	}
	l.at = e.Done
}

func (l *barLine) finished() bool {
	return l.step == imagestore.StepExists || l.step == imagestore.StepLayerDone
}

// twice is how far a layer is, where each byte counts once for the download and once for
// unpacking.
func (l *barLine) twice() int64 {
	switch {
	case l.finished():
		return 2 * l.size
	case l.step == imagestore.StepUnpack:
		return l.size + l.at
	}
	return l.at
}

// render gives the lines as they are at a time, for a terminal of that size. Of more
// layers than there is room for it shows those that are being worked on.
func (b *barLines) render(width, height int, now time.Time) []string {
	if b.title == "" {
		return nil
	}
	var lines []string
	var sum int64
	finished := 0
	for i := range b.layers {
		l := &b.layers[i]
		sum += l.twice()
		if l.finished() {
			finished++
		}
		working := l.at < l.size && (l.step == imagestore.StepDownload || l.step == imagestore.StepUnpack)
		if working || len(b.layers) < height {
			lines = append(lines, cut(l.render(now), width))
		}
	}
	lines = lines[:max(0, min(len(lines), height-1))]
	return append(lines, cut(b.overall(finished, sum, now), width))
}

func (b *barLines) overall(finished int, sum int64, now time.Time) string {
	if len(b.layers) == 0 {
		return b.title
	}
	count := fmt.Sprintf("%d of %d layers", finished, len(b.layers))
	if b.done {
		return fmt.Sprintf("%-*s %s in %s", labelWidth, count, b.title, now.Sub(b.begun).Round(100*time.Millisecond))
	}
	return fmt.Sprintf("%-*s %s %s", labelWidth, count, bar(sum, 2*b.total), b.title)
}

func (l *barLine) render(now time.Time) string {
	label := func(word string) string { return fmt.Sprintf("%-*s", labelWidth, short(l.digest)+" "+word) }
	switch l.step {
	case imagestore.StepExists:
		return label("is here")
	case imagestore.StepLayerDone:
		return label("unpacked") + " " + size(l.size)
	case imagestore.StepDownload:
		return label("downloading") + " " + bar(l.at, l.size) + " " + l.amounts(now)
	case imagestore.StepUnpack:
		if l.at == l.size { // it waits for the layers below
			return label("extracted") + " " + size(l.size)
		}
		return label("unpacking") + " " + bar(l.at, l.size) + " " + l.amounts(now)
	}
	return label("waiting")
}

// amounts are bytes done, bytes in all, and bytes a second.
func (l *barLine) amounts(now time.Time) string {
	text := size(l.at) + "/" + size(l.size)
	if elapsed := now.Sub(l.begun).Seconds(); elapsed >= barInterval.Seconds() {
		text += "  " + size(int64(float64(l.at-l.from)/elapsed)) + "/s"
	}
	return text
}

// bar draws how much of total is done, and the percentage.
func bar(done, total int64) string {
	part := 1.0
	if total > 0 {
		part = min(1, float64(done)/float64(total))
	}
	full := int(part * barWidth)
	drawn := strings.Repeat("=", full)
	if full < barWidth {
		drawn += ">" + strings.Repeat(" ", barWidth-full-1)
	}
	return fmt.Sprintf("[%s] %3d%%", drawn, int(part*100))
}

// cut keeps a line from being broken in two: going up counts lines of the screen.
func cut(line string, width int) string {
	if runes := []rune(line); len(runes) >= width {
		return string(runes[:width-1])
	}
	return line
}
