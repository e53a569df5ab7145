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
