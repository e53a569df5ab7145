// SPDX-License-Identifier: Apache-2.0

// Package graph draws what a store holds: one page of HTML, which needs nothing but
// itself, for people who would rather look than read.
//
// The page shows all layers as areas, each once, and every image as a bar of its layers,
// where a layer that several have looks the same. Below stands the same as tables. It is
// complete without its script, which only tells more of what is pointed at. Names of
// images are hostile input: they come through html/template, and a content security
// policy allows the page its own style and script and nothing else.
package graph
