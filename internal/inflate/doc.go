// SPDX-License-Identifier: Apache-2.0

// Package inflate turns the compressed bytes of a layer blob into the layer tar,
// as a stream and in bounded memory.
//
// DEFLATE is decoded by the package's own inflater, which exists for its speed
// alone; klauspost's stands behind the same interface (Options.Engine), so that
// one is always tested against the other. What makes the difference: a 64-bit bit
// buffer refilled by one eight-byte load, lookup tables that resolve nearly every
// code in one step (and two literals at once where they are short enough), and an
// output window handed to the caller in place, without another copy. It is plain
// Go without unsafe: a hostile blob can produce an error, not a stray access.
//
// Every engine and format follows one rule on what ends a blob: after the last
// gzip member or zstd frame nothing may follow, no zero padding either.
package inflate
