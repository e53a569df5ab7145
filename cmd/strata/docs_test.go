// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every command, and every flag of one, is in the reference and has a page.
func TestDocs(t *testing.T) {
	var out bytes.Buffer
	if code := run([]string{name, "docs", "markdown"}, nil, &out, os.Stderr); code != exitOK {
		t.Fatalf("exit %d", code)
	}
	if docs, err := os.ReadFile("../../docs/cli.md"); err != nil || string(docs) != out.String() {
		t.Errorf("docs/cli.md is not what is printed, run make generate (%v)", err)
	}
	dir := t.TempDir()
	if code := run([]string{name, "docs", "man", dir}, nil, &out, os.Stderr); code != exitOK {
		t.Fatalf("exit %d", code)
	}
	root := newCommand()
	for _, c := range documented(root) {
		page, err := os.ReadFile(filepath.Join(dir, c.manName()+".8"))
		if err != nil {
			t.Error(err)
		}
		if c.Usage == "" || strings.HasSuffix(c.Usage, ".") {
			t.Errorf("%s: usage %q is no phrase", c.manName(), c.Usage)
		}
		for _, o := range c.options() {
			if !strings.Contains(out.String(), "`"+o.name+"`") {
				t.Errorf("%s: %s is not in the reference", c.manName(), o.name)
			}
			if plain := strings.ReplaceAll(string(page), `\`, ""); !strings.Contains(plain, o.name) {
				t.Errorf("%s: %s is not on the page", c.manName(), o.name)
			}
			if o.text == "" {
				t.Errorf("%s: %s says nothing", c.manName(), o.name)
			}
		}
		if len(c.Commands) == 0 && c.Action == nil {
			t.Errorf("%s does nothing", c.manName())
		}
	}
	if strings.Contains(out.String(), "strata docs") {
		t.Error("the hidden command is documented")
	}
}

// bash's completion asks the program itself, with a flag that the library knows.
func TestCompletion(t *testing.T) {
	defer func(args []string) { os.Args = args }(os.Args)
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"completion", "bash"}, []string{"complete ", "_strata_"}},
		{[]string{"--generate-shell-completion"}, []string{"ls", "tree", "store"}},
		{[]string{"store", "--generate-shell-completion"}, []string{"export", "list", "verify"}},
	} {
		var stdout, stderr bytes.Buffer
		args := append([]string{name}, c.args...)
		os.Args = args // the library looks there
		code := run(args, nil, &stdout, &stderr)
		for _, want := range c.want {
			if code != exitOK || !strings.Contains(stdout.String(), want) {
				t.Errorf("%q: exit %d, no %q in %q %q", c.args, code, want, stdout.String(), stderr.String())
			}
		}
	}
}
