// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/urfave/cli/v3"
)

func docsMarkdownCommand() *cli.Command {
	return &cli.Command{
		Name: "markdown", Usage: "print docs/cli.md",
		Action: func(_ context.Context, cmd *cli.Command) error {
			if _, err := arguments(cmd, 0, 0); err != nil {
				return err
			}
			_, err := cmd.Root().Writer.Write([]byte(reference(cmd.Root())))
			return err
		},
	}
}

func docsManCommand() *cli.Command {
	return &cli.Command{
		Name: "man", Usage: "write a man page for each command", ArgsUsage: "DIRECTORY",
		Action: func(_ context.Context, cmd *cli.Command) error {
			args, err := arguments(cmd, 1, 1)
			if err != nil {
				return err
			}
			return writeManPages(cmd.Root(), args[0])
		},
	}
}

// manSection is that of commands for administrators, man-pages(7).
const manSection = 8

func writeManPages(root *cli.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, c := range documented(root) {
		file := fmt.Sprintf("%s.%d", c.manName(), manSection)
		if err := os.WriteFile(filepath.Join(dir, file), md2man.Render([]byte(c.man(root))), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// docCommand is a command that is documented, with the names that lead to it.
type docCommand struct {
	*cli.Command
	path []string
}

// documented are the command and all below it, but for hidden ones and those that the
// library adds.
func documented(root *cli.Command) []docCommand {
	return below(docCommand{root, []string{root.Name}})
}

func below(c docCommand) []docCommand {
	list := []docCommand{c}
	for _, sub := range c.Commands {
		if !sub.Hidden && sub.Name != "help" {
			list = append(list, below(docCommand{sub, append(append([]string{}, c.path...), sub.Name)})...)
		}
	}
	return list
}

func (c docCommand) manName() string { return strings.Join(c.path, "-") }

// synopsis is how the command is called.
func (c docCommand) synopsis() string {
	words := append([]string{c.path[0], "[GLOBAL OPTIONS]"}, c.path[1:]...)
	if len(c.path) > 1 && len(c.options()) > 0 {
		words = append(words, "[OPTIONS]")
	}
	for _, sub := range c.Commands {
		if !sub.Hidden && sub.Name != "help" {
			words = append(words, "COMMAND")
			break
		}
	}
	if c.ArgsUsage != "" {
		words = append(words, c.ArgsUsage)
	}
	return strings.Join(words, " ")
}

// sentence is the one line of usage as a sentence.
func (c docCommand) sentence() string {
	return strings.ToUpper(c.Usage[:1]) + c.Usage[1:] + "."
}

// docOption is a flag.
type docOption struct{ name, text string }

func (c docCommand) options() (list []docOption) {
	for _, f := range c.VisibleFlags() {
		doc, ok := f.(cli.DocGenerationFlag)
		if !ok || f.Names()[0] == "help" || f.Names()[0] == "version" {
			continue
		}
		list = append(list, newDocOption(f.Names(), doc))
	}
	return list
}

// newDocOption takes what stands in backquotes for the name of the value, as the help
// does.
func newDocOption(names []string, f cli.DocGenerationFlag) docOption {
	text, value := f.GetUsage(), ""
	if before, rest, ok := strings.Cut(text, "`"); ok {
		if quoted, after, ok := strings.Cut(rest, "`"); ok {
			text, value = before+quoted+after, quoted
		}
	}
	if f.TakesValue() && value == "" {
		value = "VALUE"
	}
	o := docOption{text: text}
	for i, n := range names {
		dashes := "--"
		if len(n) == 1 {
			dashes = "-"
		}
		if i > 0 {
			o.name += ", "
		}
		o.name += strings.TrimSpace(dashes + n + " " + value)
	}
	if d := defaultOf(f); d != "" {
		o.text += "; by default " + d
	}
	if env := f.GetEnvVars(); len(env) > 0 {
		o.text += "; also by the environment variable " + env[0]
	}
	return o
}

// defaultOf is the text that a flag has for its default, or the value itself, which is
// the default as long as nobody gave another one.
func defaultOf(f cli.DocGenerationFlag) string {
	if !f.TakesValue() {
		return ""
	}
	d := f.GetDefaultText()
	if d == "" {
		d = f.GetValue()
	}
	if d = strings.Trim(d, `"`); d == "[]" {
		return ""
	}
	return d
}
