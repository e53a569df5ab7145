// SPDX-License-Identifier: Apache-2.0

// Package layertest holds what tests of layers share: layers written down as
// lists of tar entries, a dump of a directory in which two trees can be compared
// line by line, a reference applier that works on a tree in memory, and a
// generator of random images.
//
// Only tests and the crash harness import it.
package layertest
