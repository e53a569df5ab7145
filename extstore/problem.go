// SPDX-License-Identifier: Apache-2.0

package extstore

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Reason says why a store, or a layer of it, was skipped.
type Reason string

// The reasons. Of a store: ReasonAbsent, ReasonUnreadable, ReasonFormat.
const (
	// ReasonAbsent: the path of the store is not there.
	ReasonAbsent Reason = "absent"
	// ReasonUnreadable: the system refuses to read it.
	ReasonUnreadable Reason = "unreadable"
	// ReasonFormat: it is no store, or layer, of a kind that is understood.
	ReasonFormat Reason = "format"
	// ReasonIncomplete: a layer without layer.json or without its directory.
	ReasonIncomplete Reason = "incomplete"
	// ReasonDamaged: files of the layer say what can't be.
	ReasonDamaged Reason = "damaged"
	// ReasonDifferent: the content is not what was recorded.
	ReasonDifferent Reason = "different"
	// ReasonNamespace: overlay's marks are in the other attribute namespace.
	ReasonNamespace Reason = "namespace"
)

// problem is why something is skipped.
type problem struct {
	reason Reason
	err    error
}

func (p *problem) Error() string { return p.err.Error() }
func (p *problem) Unwrap() error { return p.err }

// unreadable makes a problem of an error of reading. What a file held is no such.
func unreadable(err error) error {
	var bad *damage
	var known *problem
	switch {
	case err == nil, errors.As(err, &known), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &bad):
		return &problem{ReasonDamaged, err}
	case errors.Is(err, unix.ELOOP):
		return &problem{ReasonDamaged, fmt.Errorf("a symbolic link is in the way: %w", err)}
	}
	return &problem{ReasonUnreadable, err}
}

type warnKey struct {
	store  string
	diffID digest.Digest // "": the store as a whole
	reason Reason
}

// skip counts a problem and warns of it the first time.
func (s *Set) skip(store string, diffID digest.Digest, err error) {
	reason := ReasonUnreadable
	var p *problem
	if errors.As(err, &p) {
		reason = p.reason
	}
	key := warnKey{store, diffID, reason}
	s.mu.Lock()
	s.skipped[reason]++
	again := s.warned[key]
	s.warned[key] = true
	s.mu.Unlock()
	if again || s.warn == nil {
		return
	}
	if diffID == "" {
		s.warn(fmt.Sprintf("additional store %s is skipped: %v", store, err))
		return
	}
	advice := ""
	switch reason {
	case ReasonDamaged, ReasonDifferent, ReasonIncomplete:
		advice = "; remove it from the store and export it again"
	}
	s.warn(fmt.Sprintf("%s of additional store %s is skipped: %v%s", diffID, store, err, advice))
}

// fine makes the next problem of the store, or layer, worth a warning again.
func (s *Set) fine(store string, diffID digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.warned, func(k warnKey, _ bool) bool { return k.store == store && k.diffID == diffID })
}

// Stats counts what look-ups came to, since Open.
type Stats struct {
	// Found layers, and look-ups that found none.
	Found, Missed uint64
	// Skipped stores and layers by reason, each time one was in the way of a
	// look-up.
	Skipped map[Reason]uint64
}

// Stats returns the counts, for a metric.
func (s *Set) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Found: s.found, Missed: s.missed, Skipped: maps.Clone(s.skipped)}
}
