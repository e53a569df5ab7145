// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v3"
)

// exitCodes are those of exit.go, for people.
var exitCodes = []struct {
	code int
	text string
}{
	{exitOK, "done"},
	{exitFailed, "anything else that failed"},
	{exitUsage, "the command line is wrong, or a reference can't be parsed"},
	{exitNotFound, "there is no such image, snapshot, layer, platform, store or file"},
	{exitBadContent, "a wrong digest, a truncated archive, a layer that was refused, a store that is not what it was"},
	{exitUnavailable, "the registry, or containerd, can't be reached, or the store is in use"},
	{exitInterrupted, "interrupted by a signal"},
}

const (
	referenceHead = "<!-- Written by `make generate` from the commands: change those. -->\n\n# The command `strata`\n\n"

	fsckCodes = "`strata fsck` has codes of its own, see [fsck.md](fsck.md)."

	completionText = "Completion for bash: `source <(strata completion bash)`; zsh, fish and pwsh have theirs. " +
		"`make man` writes manual pages to `bin/man`.\n\n" +
		"Commands that list something print a table for people. `--json` prints an array for programs, whose fields stay as they are; there may be more of them later. " +
		"`--format` executes a Go template for each row, on the fields as Go names them (`{{.Number}}`), with the function `json`. Sizes are bytes there.\n"
)

// reference is docs/cli.md.
func reference(root *cli.Command) string {
	var b strings.Builder
	b.WriteString(referenceHead)
	commands := documented(root)
	fmt.Fprintf(&b, "%s\n\n```\n%s\n```\n\n%s\n", commands[0].sentence(), commands[0].synopsis(), completionText)
	b.WriteString("| command | |\n|---|---|\n")
	for _, c := range commands[1:] {
		if len(c.Commands) == 0 || c.Action != nil {
			title := strings.Join(c.path[1:], " ")
			fmt.Fprintf(&b, "| [%s](#strata-%s) | %s |\n", title, strings.ReplaceAll(title, " ", "-"), cell(c.Usage))
		}
	}
	b.WriteString("\n## Global options\n\nThey stand before the command.\n\n")
	writeOptions(&b, commands[0])
	b.WriteString("\n## Exit codes\n\n| | |\n|---|---|\n")
	for _, e := range exitCodes {
		fmt.Fprintf(&b, "| %d | %s |\n", e.code, e.text)
	}
	fmt.Fprintf(&b, "\n%s\n", fsckCodes)
	for _, c := range commands[1:] {
		c.writeSection(&b)
	}
	return b.String()
}

func (c docCommand) writeSection(b *strings.Builder) {
	fmt.Fprintf(b, "\n## %s\n\n%s\n\n```\n%s\n```\n", strings.Join(c.path, " "), c.sentence(), c.synopsis())
	if c.Description != "" {
		fmt.Fprintf(b, "\n%s\n", c.Description)
	}
	if len(c.options()) > 0 {
		b.WriteString("\n")
		writeOptions(b, c)
	}
}

func writeOptions(b *strings.Builder, c docCommand) {
	b.WriteString("| option | |\n|---|---|\n")
	for _, o := range c.options() {
		fmt.Fprintf(b, "| `%s` | %s |\n", o.name, cell(o.text))
	}
}

// cell keeps a text from ending its cell.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// man is the manual page, in the Markdown that md2man reads.
func (c docCommand) man(root *cli.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%% %s %d\n\n# NAME\n\n%s - %s\n\n# SYNOPSIS\n\n**%s**\n\n", strings.ToUpper(c.manName()), manSection, c.manName(), c.Usage, manText(c.synopsis()))
	if c.Description != "" {
		fmt.Fprintf(&b, "# DESCRIPTION\n\n%s\n\n", manText(c.Description))
	}
	title := "OPTIONS"
	if c.Command == root {
		title = "GLOBAL OPTIONS"
	}
	if len(c.options()) > 0 {
		fmt.Fprintf(&b, "# %s\n\n", title)
	}
	for _, o := range c.options() {
		fmt.Fprintf(&b, "**%s**\n: %s\n\n", manText(o.name), manText(o.text))
	}
	if c.Name != fsckCommand().Name { // its description has its own
		b.WriteString("# EXIT STATUS\n\n")
		for _, e := range exitCodes {
			fmt.Fprintf(&b, "**%d**\n: %s\n\n", e.code, e.text)
		}
	}
	b.WriteString("# SEE ALSO\n\n")
	for _, other := range documented(root) {
		if other.manName() != c.manName() {
			fmt.Fprintf(&b, "**%s**(%d) ", other.manName(), manSection)
		}
	}
	return b.String() + "\n"
}

// manText keeps Markdown from reading more into a text than it says.
func manText(s string) string {
	return strings.NewReplacer("*", `\*`, "_", `\_`, "<", `\<`, "[", `\[`, "]", `\]`, "|", `\|`).Replace(s)
}
