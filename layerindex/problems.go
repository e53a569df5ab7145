// SPDX-License-Identifier: Apache-2.0

package layerindex

import (
	"fmt"
	"strings"
)

// Kinds returns all kinds of problems, the worst first.
func Kinds() []Kind {
	return []Kind{Missing, Unexpected, OtherType, Size, Content, LinkTarget, Mode, Owner, Attributes, Time}
}

// Problems are what was found in one layer, by kind. Its memory does not grow with how
// many there are.
type Problems map[Kind]*Tally

// Tally is what is wrong with entries of a layer in one way.
type Tally struct {
	// Count is how many entries.
	Count int64
	// First are the first few of them.
	First []Problem
}

// firstProblems is how many entries are named.
const firstProblems = 3

// Add counts p. It returns nil: it is a report for Verify.
func (ps Problems) Add(p Problem) error {
	of := ps[p.Kind]
	if of == nil {
		of = &Tally{}
		ps[p.Kind] = of
	}
	of.Count++
	if len(of.First) < firstProblems {
		of.First = append(of.First, p)
	}
	return nil
}

// String names the first entries.
func (p *Tally) String() string {
	var b strings.Builder
	for i, one := range p.First {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%q: %s", short("/"+one.Path), short(one.Text))
	}
	if more := p.Count - int64(len(p.First)); more > 0 {
		fmt.Fprintf(&b, "; and %d more", more)
	}
	return b.String()
}

// short cuts what can have as many bytes as a layer may give a path.
func short(s string) string {
	const most = 300
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// String is the problems of all kinds, for a log.
func (ps Problems) String() string {
	var parts []string
	for _, kind := range Kinds() {
		if p := ps[kind]; p != nil {
			parts = append(parts, fmt.Sprintf("%s: %s", kind, p))
		}
	}
	return strings.Join(parts, "; ")
}
