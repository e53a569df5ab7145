// SPDX-License-Identifier: Apache-2.0

package fsck

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// WriteJSON writes the report as one JSON object. Its fields are stable; there may be
// more of them later.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	if r.Rebuilt != nil {
		r.Rebuilt.write(&b)
	}
	for _, f := range r.Repaired {
		fmt.Fprintf(&b, "repaired: %s: %s\n", f.Code, oneLine(f.Message))
	}
	for _, f := range r.Findings {
		f.write(&b)
	}
	fmt.Fprintf(&b, "%s: %s\n", r.Root, r.summary())
	_, err := io.WriteString(w, b.String())
	return err
}

func (f Finding) write(b *strings.Builder) {
	fmt.Fprintf(b, "%s: %s: %s\n", f.Severity, f.Code, oneLine(f.Message))
	if f.Subject.Path != "" {
		fmt.Fprintf(b, "    at: %s\n", f.Subject.Path)
	}
	for _, name := range f.Affected {
		fmt.Fprintf(b, "    stands on it: %s\n", name)
	}
	for _, a := range f.Plan {
		fmt.Fprintf(b, "    plan: %s\n", a.Text)
	}
	if len(f.Plan) == 0 {
		fmt.Fprintf(b, "    do: %s\n", f.Advice)
	}
}

func (r *Rebuilt) write(b *strings.Builder) {
	fmt.Fprintf(b, "rebuild: metadata.db, which is damaged: %s\n", oneLine(r.Why))
	fmt.Fprintf(b, "    has: %d committed snapshots, %d active ones, %d views, %d layers\n", r.Committed, r.Active, r.Views, r.Layers)
	for _, text := range r.Lost {
		fmt.Fprintf(b, "    lost: %s\n", text)
	}
	if r.Aside != "" {
		fmt.Fprintf(b, "    the old one: %s\n", r.Aside)
	}
	for _, path := range r.Kept {
		fmt.Fprintf(b, "    kept: %s\n", path)
	}
}

func (r *Report) summary() string {
	count := map[Severity]int{}
	for _, f := range r.Findings {
		count[f.Severity]++
	}
	text := "clean"
	if len(r.Findings) > 0 {
		text = fmt.Sprintf("damage: %d, leftovers: %d, hints: %d", count[Damage], count[Leftover], count[Hint])
	}
	if len(r.Repaired) > 0 {
		text += fmt.Sprintf(", repaired: %d", len(r.Repaired))
	}
	return text
}

func oneLine(s string) string { return strings.ReplaceAll(s, "\n", "; ") }
