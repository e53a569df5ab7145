// SPDX-License-Identifier: Apache-2.0

package inflate

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"
)

// codeCases are pairs of codes; padding follows the header, so that wherever the
// codes are accepted, their use is tested too.
var codeCases = []struct {
	name           string
	litlens, dists []uint8
	valid          bool // the header; what follows may still be wrong
}{
	{"end of block alone, no distance", lens(257, 256, 1), lens(1), true},
	{"end of block alone, one distance", lens(257, 256, 1), lens(1, 0, 1), true},
	{"single code of two bits", lens(257, 256, 2), lens(1), false},
	{"no code at all", lens(257), lens(1), true},
	{"two codes", lens(257, 65, 1, 256, 1), lens(1), true},
	{"two codes, one distance of two bits", lens(257, 65, 1, 256, 1), lens(1, 0, 2), false},
	{"three codes of one bit", lens(257, 65, 1, 66, 1, 256, 1), lens(1), false},
	{"incomplete", lens(257, 65, 2, 66, 2, 256, 2), lens(1), false},
	{"incomplete at 15 bits", lens(257, 65, 1, 66, 15, 256, 15), lens(1), false},
	{"length symbol, no distance", lens(258, 65, 2, 66, 2, 256, 2, 257, 2), lens(1), true},
	{"length symbol, one distance", lens(258, 65, 2, 66, 2, 256, 2, 257, 2), lens(1, 0, 1), true},
	{"length symbol, last distance alone", lens(258, 65, 2, 66, 2, 256, 2, 257, 2), lens(30, 29, 1), true},
	{"length symbol, two distances", lens(258, 65, 2, 66, 2, 256, 2, 257, 2), lens(2, 0, 1, 1, 1), true},
	{"distances over-subscribed", lens(257, 65, 1, 256, 1), lens(3, 0, 1, 1, 1, 2, 1), false},
	{"distances incomplete", lens(257, 65, 1, 256, 1), lens(3, 0, 2, 1, 2, 2, 2), false},
	{"all lengths", lens(272, 256, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10,
		10, 11, 11, 12, 12, 13, 13, 14, 257, 15, 271, 15),
		lens(16, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15, 15), true},
	{"287 literals and lengths", lens(287, 65, 1, 256, 1), lens(1), false},
	{"288 literals and lengths", lens(288, 65, 1, 256, 1), lens(1), false},
	{"31 distances", lens(257, 65, 1, 256, 1), lens(31), false},
	{"32 distances", lens(257, 65, 1, 256, 1), lens(32), false},
}

func TestCodes(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, c := range codeCases {
		t.Run(c.name, func(t *testing.T) {
			var w bitWriter
			w.dynamic(true, c.litlens, c.dists)
			header := bytes.Clone(w.bytes())
			for round := range 120 {
				data := bytes.Clone(header)
				for range 2 * round {
					data = append(data, byte(rng.Uint32()))
				}
				if _, err := sameAsFlate(t, data); !c.valid && err == nil {
					t.Fatal("accepted")
				}
			}
			f := new(inflater)
			f.reset(bytes.NewReader(append(header, 0, 0, 0, 0)))
			if err := f.blockHeader(); (err == nil) != c.valid {
				t.Errorf("header: %v, want valid %v", err, c.valid)
			}
		})
	}
}

// TestRandomCodes compares with compress/flate on complete, incomplete and
// over-subscribed codes of random lengths, with random data behind.
func TestRandomCodes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w bitWriter
		for range rapid.IntRange(1, 3).Draw(t, "blocks") {
			litlens := randomCode(t, rapid.IntRange(257, 286).Draw(t, "litlens"))
			dists := randomCode(t, rapid.IntRange(1, 30).Draw(t, "dists"))
			w.dynamic(rapid.Bool().Draw(t, "final"), litlens, dists)
			for range rapid.IntRange(0, 400).Draw(t, "data") {
				w.bits(uint(rapid.Byte().Draw(t, "byte")), 8)
			}
		}
		_, _ = sameAsFlate(t, w.bytes())
	})
}

// randomCode splits a code of one word until it has enough, which leaves it
// complete, and now and then spoils one length.
func randomCode(t *rapid.T, size int) []uint8 {
	words := []uint8{0}
	for range rapid.IntRange(1, size).Draw(t, "words") - 1 {
		i := rapid.IntRange(0, len(words)-1).Draw(t, "split")
		if words[i] < maxCodeLen {
			words[i]++
			words = append(words, words[i])
		}
	}
	l := make([]uint8, size)
	at := rapid.Permutation(indices(size)).Draw(t, "symbols")
	for i, n := range words {
		l[at[i]] = n
	}
	if rapid.IntRange(0, 9).Draw(t, "spoil") == 0 {
		l[rapid.IntRange(0, size-1).Draw(t, "where")] = uint8(rapid.IntRange(0, maxCodeLen).Draw(t, "length"))
	}
	return l
}

func indices(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

func TestInvalidBlocks(t *testing.T) {
	cases := map[string]func(w *bitWriter){
		"block type 3":               func(w *bitWriter) { w.header(true, 3) },
		"stored length":              func(w *bitWriter) { w.header(true, 0); w.bits(0, 5); w.bits(7, 16); w.bits(7, 16) },
		"fixed litlen 286":           func(w *bitWriter) { w.header(true, 1); w.litlen(286) },
		"fixed litlen 287":           func(w *bitWriter) { w.header(true, 1); w.litlen(287) },
		"fixed dist 30":              func(w *bitWriter) { w.header(true, 1); w.litlen(65); w.litlen(257); w.word(30, 5) },
		"fixed dist 31":              func(w *bitWriter) { w.header(true, 1); w.litlen(65); w.litlen(257); w.word(31, 5) },
		"repetition at the start":    func(w *bitWriter) { w.header(true, 2); repeatHeader(w, 16) },
		"repetition past the end":    func(w *bitWriter) { w.header(true, 2); repeatHeader(w, 18) },
		"code of lengths incomplete": func(w *bitWriter) { w.header(true, 2); w.bits(0, 14); w.bits(3, 3); w.bits(0, 9) },
		"code of lengths empty":      func(w *bitWriter) { w.header(true, 2); w.bits(0, 14); w.bits(0, 12) },
	}
	for name, write := range cases {
		for _, padding := range []int{20, 100} { // decoded by the slow and by the fast loop
			var w bitWriter
			write(&w)
			if _, err := sameAsFlate(t, append(w.bytes(), make([]byte, padding)...)); err == nil {
				t.Errorf("%s: accepted", name)
			}
		}
	}
}

// repeatHeader writes a code of lengths with only 0 and symbol, one bit each, and
// then symbol again and again.
func repeatHeader(w *bitWriter, symbol uint8) {
	w.bits(0, 10)
	w.bits(15, 4)
	for _, s := range codeLenOrder {
		if s == 0 || s == symbol {
			w.bits(1, 3)
		} else {
			w.bits(0, 3)
		}
	}
	for range 10 {
		w.bits(0xff, 8)
	}
}

func TestDistanceTooFar(t *testing.T) {
	history := make([]byte, maxDist)
	for _, have := range []int{0, 1, 2, 3, 7, 8, 100, 1000, maxDist - 1} {
		for _, padding := range []int{0, 100} {
			for tooFar := range 2 {
				if have+tooFar == 0 {
					continue
				}
				var w bitWriter
				w.stored(false, history[:have])
				w.header(true, 1)
				w.match(10, uint(have+tooFar))
				w.litlen(endOfBlock)
				data := append(w.bytes(), make([]byte, padding)...)
				if _, err := sameAsFlate(t, data); (err != nil) != (tooFar == 1) {
					t.Errorf("distance %d after %d bytes: %v", have+tooFar, have, err)
				}
			}
		}
	}
}

// TestHistoryEnds checks that a stream cannot look into the one before it.
func TestHistoryEnds(t *testing.T) {
	var first, second bitWriter
	first.stored(true, []byte("secret"))
	second.header(true, 1)
	second.match(6, 6)
	second.litlen(endOfBlock)
	f := new(inflater)
	f.reset(bytes.NewReader(append(first.bytes(), second.bytes()...)))
	if got, err := f.next(f.out.mine()); string(got) != "secret" || err != io.EOF { //nolint:errorlint // exactly so
		t.Fatalf("%q, %v", got, err)
	}
	f.restart()
	if got, err := f.next(f.out.mine()); len(got) != 0 || !errdefs.IsInvalidArgument(err) {
		t.Fatalf("%q, %v", got, err)
	}
}
