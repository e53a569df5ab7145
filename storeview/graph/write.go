// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"io"
	"time"

	"github.com/strata-snapshotter/strata/storeview"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

//go:embed page.js
var pageJS string

var pageTemplate = template.Must(template.New("page").Parse(pageHTML))

// Write writes the page of a store, as it is at the time now. It measures what containers
// wrote, which takes time in proportion to the number of files.
//
// Errors are those of View.Parts, and of w.
func Write(ctx context.Context, w io.Writer, v *storeview.View, now time.Time) error {
	parts, err := v.Parts(ctx, nil)
	if err != nil {
		return err
	}
	p := newPage(v, parts, now)
	// Both are files of this package, and no input.
	p.Style, p.Script = template.CSS(pageCSS), template.JS(pageJS) //nolint:gosec // see above
	return pageTemplate.Execute(w, struct {
		*page
		StyleHash, ScriptHash string
	}{p, hash(pageCSS), hash(pageJS)})
}

// hash is how a content security policy names a text in the page (CSP level 3, 2.3.1).
func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
