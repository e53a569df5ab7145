// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/log"
	"golang.org/x/term"

	"github.com/strata-snapshotter/strata/imagestore"
)

// barInterval is the pause between two drawings.
const barInterval = 100 * time.Millisecond

// bars draws the lines of a pull again and again at the bottom of a terminal.
type bars struct {
	f    *os.File
	stop chan struct{}
	done chan struct{}

	mu    sync.Mutex
	lines barLines
	drawn int // lines on the screen that are drawn over
}

func newBars(f *os.File) *bars {
	b := &bars{f: f, stop: make(chan struct{}), done: make(chan struct{})}
	// A line of the log between the bars would be drawn over.
	log.L.Logger.SetOutput(b)
	go b.run()
	return b
}

func (b *bars) run() {
	defer close(b.done)
	ticker := time.NewTicker(barInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			b.draw("")
		case <-b.stop:
			b.draw("")
			return
		}
	}
}

func (b *bars) event(e imagestore.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines.event(e, time.Now())
}

// Write puts a line of the log above the bars.
func (b *bars) Write(line []byte) (int, error) {
	b.draw(string(line))
	return len(line), nil
}

// end leaves the lines as they are.
func (b *bars) end() {
	close(b.stop)
	<-b.done
	log.L.Logger.SetOutput(b.f)
}

// draw goes up to the first of the lines and writes them again, after what is to stand
// above them.
func (b *bars) draw(above string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	width, height, err := term.GetSize(int(b.f.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	lines := b.lines.render(width, height-1, time.Now())
	var out strings.Builder
	if b.drawn > 0 {
		_, _ = fmt.Fprintf(&out, "\x1b[%dA", b.drawn)
	}
	out.WriteString("\r\x1b[J") // clear to the end of the screen
	out.WriteString(above)
	for _, line := range lines {
		out.WriteString(line + "\n")
	}
	b.drawn = len(lines)
	_, _ = io.WriteString(b.f, out.String()) // a terminal that is gone shows nothing
}
