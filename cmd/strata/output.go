// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"

	"github.com/urfave/cli/v3"
)

// column is a column of a table for people.
type column[T any] struct {
	title string
	value func(row T) string
}

// printList prints rows as the command's flags (see listFlags) ask for: a table for
// people, a JSON array of the rows as they are, or a template executed for each.
func printList[T any](cmd *cli.Command, columns []column[T], rows []T) error {
	w := cmd.Root().Writer
	switch format := cmd.String(flagFormat); {
	case format != "" && cmd.Bool(flagJSON):
		return usage(cmd, "--%s and --%s exclude each other", flagJSON, flagFormat)
	case format != "":
		return printTemplate(cmd, w, format, rows)
	case cmd.Bool(flagJSON):
		if rows == nil {
			rows = []T{} // an empty list is [], not null
		}
		return printJSON(w, rows)
	}
	return printTable(w, columns, rows)
}

func printJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}

func printTemplate[T any](cmd *cli.Command, w io.Writer, format string, rows []T) error {
	t, err := template.New(flagFormat).Funcs(template.FuncMap{"json": jsonText}).Parse(format)
	if err != nil {
		return usage(cmd, "--%s: %w", flagFormat, err)
	}
	for _, row := range rows {
		if err := t.Execute(w, row); err != nil {
			return usage(cmd, "--%s: %w", flagFormat, err)
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
	}
	return nil
}

// jsonText lets a template print what has no plain form.
func jsonText(value any) (string, error) {
	data, err := json.Marshal(value)
	return string(data), err
}

func printTable[T any](w io.Writer, columns []column[T], rows []T) error {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	cells := make([]string, len(columns))
	for i, c := range columns {
		cells[i] = c.title
	}
	if _, err := fmt.Fprintln(table, strings.Join(cells, "\t")); err != nil {
		return err
	}
	for _, row := range rows {
		for i, c := range columns {
			cells[i] = printable(c.value(row))
		}
		if _, err := fmt.Fprintln(table, strings.Join(cells, "\t")); err != nil {
			return err
		}
	}
	return table.Flush()
}

// printable keeps what comes from an image or a name from moving a terminal's cursor or
// breaking the table.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return '?'
		}
		return r
	}, s)
}
