// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"

	"github.com/strata-snapshotter/strata/internal/step"
)

const prepareMethod = "/containerd.services.snapshots.v1.Snapshots/Prepare"

// nobody is an observer that does not look.
type nobody struct{}

func (nobody) ended(string, error, time.Duration) {}
func (nobody) isSlow(string)                      {}
func (nobody) slowEnded(string)                   {}

// hanging is a handler that pays no attention to its context.
func hanging(free <-chan struct{}) grpc.UnaryHandler {
	return func(ctx context.Context, _ any) (any, error) {
		defer step.Enter(ctx, step.Sync)()
		<-free
		return "late", nil
	}
}

func prepareCall(ctx context.Context, cs *calls, next grpc.UnaryHandler) (any, error) {
	return cs.unary(ctx, &snapshotsapi.PrepareSnapshotRequest{Key: "k"}, &grpc.UnaryServerInfo{FullMethod: prepareMethod}, next)
}

// The clock of these tests is not real: they take no time.
func TestCallerIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cs := newCalls(callLimits{maxLeft: 2, leaveAfter: time.Second, slowAfter: time.Hour}, nobody{})
		free := make(chan struct{})
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			_, err := prepareCall(ctx, cs, hanging(free))
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), step.Sync) || !strings.Contains(err.Error(), "Prepare k") {
				t.Errorf("got %v", err)
			}
		}
		_, err := prepareCall(t.Context(), cs, hanging(free))
		if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "2 calls hang") {
			t.Errorf("a call more than may hang: %v", err)
		}
		if err := cs.wait(time.Second); !errdefs.IsUnavailable(err) {
			t.Errorf("waiting for calls that hang: %v", err)
		}
		close(free)
		if err := cs.wait(time.Second); err != nil {
			t.Error(err)
		}
		if resp, err := prepareCall(t.Context(), cs, hanging(free)); err != nil || resp != "late" {
			t.Errorf("after they have ended: %v, %v", resp, err)
		}
	})
}

// A call that notices the end of its context answers by itself.
func TestCallThatEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cs := newCalls(callLimits{maxLeft: 1, leaveAfter: time.Second, slowAfter: time.Hour}, nobody{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := prepareCall(ctx, cs, func(ctx context.Context, _ any) (any, error) {
			<-ctx.Done()
			time.Sleep(time.Millisecond) // cleans up
			return nil, errdefs.ErrDataLoss
		})
		if !errdefs.IsDataLoss(err) {
			t.Errorf("got %v", err)
		}
		if err := cs.admit(); err != nil {
			t.Error(err)
		}
	})
}

func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var buf lockedBuffer
		logger := logrus.New()
		logger.Out = &buf
		ctx := log.WithLogger(t.Context(), logrus.NewEntry(logger))
		cs := newCalls(callLimits{maxLeft: 1, leaveAfter: time.Second, slowAfter: 10 * time.Second}, nobody{})
		entries := func() int { return strings.Count(buf.String(), "a call takes long") }
		free := make(chan struct{})
		done := make(chan error)
		go func() {
			_, err := prepareCall(ctx, cs, hanging(free))
			done <- err
		}()
		at := 0
		for _, w := range []struct{ second, entries int }{{9, 0}, {11, 1}, {21, 2}, {39, 2}, {41, 3}, {79, 3}, {81, 4}} {
			time.Sleep(time.Duration(w.second-at) * time.Second)
			at = w.second
			if got := entries(); got != w.entries {
				t.Errorf("after %d seconds there are %d entries, want %d", w.second, got, w.entries)
			}
		}
		close(free)
		if err := <-done; err != nil {
			t.Error(err)
		}
		for _, want := range []string{"level=warning", "key=k", prepareMethod, "step=\"" + step.Sync + ", for 10s", "has ended"} {
			if !strings.Contains(buf.String(), want) {
				t.Errorf("%q is not in the log:\n%s", want, buf.String())
			}
		}
		before := buf.String()
		if _, err := prepareCall(ctx, cs, hanging(free)); err != nil || buf.String() != before {
			t.Errorf("a short call: %v, %s", err, buf.String())
		}
	})
}

// streamOf counts what is sent.
type streamOf struct {
	grpc.ServerStream
	ctx  context.Context
	sent int
}

func (s *streamOf) Context() context.Context { return s.ctx }
func (s *streamOf) SendMsg(any) error        { s.sent++; return nil }

// A handler that was left does not touch the stream any more: gRPC has finished it.
func TestStreamIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cs := newCalls(callLimits{maxLeft: 1, leaveAfter: time.Second, slowAfter: time.Hour}, nobody{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		ss := &streamOf{ctx: ctx}
		free, late := make(chan struct{}), make(chan error, 1)
		err := cs.stream(nil, ss, &grpc.StreamServerInfo{FullMethod: "/containerd.services.snapshots.v1.Snapshots/List"}, func(_ any, s grpc.ServerStream) error {
			if err := s.SendMsg(nil); err != nil {
				t.Error(err)
			}
			<-free
			late <- s.SendMsg(nil)
			return nil
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		close(free)
		if err := <-late; !errors.Is(err, context.DeadlineExceeded) || ss.sent != 1 {
			t.Errorf("%d messages were sent, the late one: %v", ss.sent, err)
		}
	})
}
