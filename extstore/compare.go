// SPDX-License-Identifier: Apache-2.0

package extstore

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
)

// comparer holds records against an index and remembers the first difference.
// Nothing depends on it but what a message says: the digests decide.
type comparer struct {
	index *bufio.Reader
	depth depth
	dir   string // of the last entry that was the same
	found string // the first difference, "" if there is none yet
	ended bool   // nothing is left to compare with
}

func newComparer(index io.Reader, d depth) *comparer {
	return &comparer{index: bufio.NewReader(index), depth: d, dir: "."}
}

// add compares the next record of the tree.
func (c *comparer) add(r record) {
	if c.found != "" || c.ended {
		return
	}
	meta, content, err := c.next()
	switch {
	case errors.Is(err, io.EOF):
		c.found = fmt.Sprintf("%s was added", quote(r.rel))
	case err != nil:
		c.ended = true
	case meta != r.meta:
		c.found = c.describe(meta, r)
	case c.depth == withContents && content != r.content:
		c.found = fmt.Sprintf("the content of %s has changed", quote(r.rel))
	default:
		c.dir = path.Dir(r.rel)
	}
}

// finish is called when the tree has no more records.
func (c *comparer) finish() {
	if c.found != "" || c.ended {
		return
	}
	if meta, _, err := c.next(); err == nil {
		c.found = pathField(meta) + " is missing"
	}
}

// next reads a line of the index.
func (c *comparer) next() (meta, content string, err error) {
	line, err := c.index.ReadString('\n')
	if err != nil {
		return "", "", err
	}
	line = strings.TrimSuffix(line, "\n")
	i := strings.LastIndexByte(line, ' ')
	if i < 0 {
		return "", "", errors.New("a line without columns")
	}
	return line[:i], line[i+1:], nil
}

func (c *comparer) describe(recorded string, r record) string {
	if pathField(recorded) == quote(r.rel) {
		return changed(recorded, r)
	}
	was, err := strconv.Unquote(pathField(recorded))
	if err != nil {
		return ""
	}
	// Within a directory names are sorted, and the directory whose entries have
	// not come to their end comes first.
	here, there := path.Dir(r.rel), path.Dir(was)
	switch {
	case here == there && was < r.rel, here != there && there == c.dir:
		return quote(was) + " is missing"
	case here == there, here == c.dir:
		return quote(r.rel) + " was added"
	}
	return fmt.Sprintf("there is %s where %s was", quote(r.rel), quote(was))
}

// changed names the first column that is different.
func changed(recorded string, r record) string {
	was, is := strings.Split(recorded, " "), strings.Split(r.meta, " ")
	for i := range min(len(was), len(is), len(fields)) {
		if was[i] != is[i] {
			return fmt.Sprintf("the %s of %s is %s and was %s", fields[i], quote(r.rel), short(is[i]), short(was[i]))
		}
	}
	return quote(r.rel) + " has changed"
}

const maxShown = 200

func short(s string) string {
	if len(s) > maxShown {
		return s[:maxShown] + "…"
	}
	return s
}

func pathField(meta string) string {
	p, _, _ := strings.Cut(meta, " ")
	return p
}
