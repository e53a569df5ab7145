// SPDX-License-Identifier: Apache-2.0

// Package testimage builds small, real container images from lists of tar entries,
// so that tests and the demo need neither a network nor a fixture that nobody can
// read. Images are reproducible: the same entries give the same diffIDs.
package testimage
