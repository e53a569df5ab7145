// SPDX-License-Identifier: Apache-2.0

package graph_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/net/html"

	"github.com/strata-snapshotter/strata/internal/testutil/teststore"
	"github.com/strata-snapshotter/strata/storeview"
	"github.com/strata-snapshotter/strata/storeview/graph"
)

// hostile are names that would do something if they were not escaped.
var hostile = []string{
	`<script>document.title='hurt'</script>`,
	`"><img src=x onerror=alert(1)>`,
	`</title></svg></table><iframe src="//example.test/x">`,
	`' onload='alert(1)`,
	"{{.Root}} ${1} `x`",
	"javascript:alert(1)",
	"\u202egnp.exe\x00\x1b[31m\xff",
}

// elements and attributes are all that the page may have, whatever names say.
var (
	elements = strings.Fields("html head meta title style body h1 h2 p bdi code dl div dt dd svg rect text ul li b span table thead tbody tr th td script")
	// No on…, no href, no src, no style.
	attributes = strings.Fields("lang charset http-equiv content name class id role aria-label aria-hidden x y width height fill data-layer data-detail scope")
)

func writePage(t *testing.T) (page string, v *storeview.View) {
	t.Helper()
	store := teststore.New(t)
	names := storeview.Names{Containers: []storeview.NamedContainer{{Namespace: "default", ID: hostile[0], Key: "web"}}}
	for i, name := range hostile {
		chain := []digest.Digest{teststore.AppChain, teststore.OtherChain}[i%2]
		names.Images = append(names.Images, storeview.NamedImage{Namespace: "default", Name: name, ChainIDs: []digest.Digest{chain}})
	}
	v, err := storeview.Open(context.Background(), store.Dir, names)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	var b bytes.Buffer
	if err := graph.Write(context.Background(), &b, v, time.Unix(1_700_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	if keep := os.Getenv("STRATA_KEEP_GRAPH"); keep != "" { // to be looked at
		if err := os.WriteFile(keep, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return b.String(), v
}

// Names are text wherever they stand, and the page asks for nothing from anywhere.
func TestHostileNames(t *testing.T) {
	page, _ := writePage(t)
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	scripts := 0
	for n := range root.Descendants() {
		if n.Type == html.CommentNode {
			t.Errorf("a comment: %q", n.Data)
		}
		if n.Type != html.ElementNode {
			continue
		}
		if n.Data == "script" {
			scripts++
		}
		if !slices.Contains(elements, n.Data) {
			t.Errorf("an element %s", n.Data)
		}
		for _, a := range n.Attr {
			if !slices.Contains(attributes, a.Key) {
				t.Errorf("%s has an attribute %s=%q", n.Data, a.Key, a.Val)
			}
		}
	}
	if scripts != 1 || strings.Contains(page, "://") {
		t.Errorf("%d scripts, or an address", scripts)
	}
	text := textOf(root)
	for _, name := range hostile[:6] {
		if !strings.Contains(text, name) {
			t.Errorf("the name %q is not shown as it is", name)
		}
	}
}

func textOf(root *html.Node) string {
	var b strings.Builder
	for n := range root.Descendants() {
		if n.Type == html.TextNode {
			b.WriteString(n.Data)
		}
	}
	return b.String()
}

// The policy names the style and the script that are there, and allows nothing else.
func TestPolicy(t *testing.T) {
	page, _ := writePage(t)
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	policy := ""
	for n := range root.Descendants() {
		for _, a := range n.Attr {
			if n.Data == "meta" && a.Key == "content" && strings.HasPrefix(a.Val, "default-src") {
				policy = a.Val
			}
		}
	}
	if !regexp.MustCompile(`^default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'sha256-[^ ]+'; script-src 'sha256-[^ ]+'$`).MatchString(policy) {
		t.Errorf("policy %q", policy)
	}
	for n := range root.Descendants() {
		if n.Type == html.ElementNode && (n.Data == "script" || n.Data == "style") {
			sum := digest.FromString(n.FirstChild.Data)
			if want := base64Of(t, sum); !strings.Contains(policy, want) {
				t.Errorf("the policy does not allow the page's own %s: %s", n.Data, want)
			}
		}
	}
}

// Every layer is a row and, if it takes anything, a piece of the map; pieces are in the
// map and take together what it has.
func TestPiecesFillTheMap(t *testing.T) {
	page, v := writePage(t)
	pieces := regexp.MustCompile(`<svg class="(?:single|shared|unused)" x="([\d.]+)%" y="([\d.]+)%" width="([\d.]+)%" height="([\d.]+)%" data-layer="(\d+)"`).FindAllStringSubmatch(page, -1)
	if len(pieces) != len(v.Layers) {
		t.Errorf("%d pieces of %d layers", len(pieces), len(v.Layers))
	}
	total := 0.0
	for _, l := range v.Layers {
		total += float64(l.Size)
	}
	for _, p := range pieces {
		var x, y, w, h float64
		var n uint64
		if _, err := fmt.Sscan(strings.Join(p[1:], " "), &x, &y, &w, &h, &n); err != nil {
			t.Fatal(err)
		}
		if x < 0 || y < 0 || x+w > 100.01 || y+h > 100.01 {
			t.Errorf("layer %d is drawn outside: %v", n, p[1:5])
		}
		if want := float64(v.Layer(n).Size) / total; w*h/1e4 < want*0.99 || w*h/1e4 > want*1.01 {
			t.Errorf("layer %d has %.4f of the map, and %.4f of the bytes", n, w*h/1e4, want)
		}
		if !strings.Contains(page, fmt.Sprintf(`<tr data-layer="%d">`, n)) {
			t.Errorf("layer %d is in no table", n)
		}
	}
}

// base64Of is a digest as policies write it.
func base64Of(t *testing.T, d digest.Digest) string {
	t.Helper()
	raw, err := hex.DecodeString(d.Encoded())
	if err != nil {
		t.Fatal(err)
	}
	return "'sha256-" + base64.StdEncoding.EncodeToString(raw) + "'"
}
