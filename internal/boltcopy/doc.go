// SPDX-License-Identifier: Apache-2.0

// Package boltcopy reads a bbolt file that another process has open and writes to.
//
// bbolt's own readers need its lock, which a writer holds for as long as it has the file
// open. A copy needs none: a transaction never writes to a page that the state before it
// is made of. Only the one after it may, since what a transaction frees is used again by
// the next. So a copy of a state is whole if that state is still the newest when all of
// it has been read; otherwise it is read again.
package boltcopy
