// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// dumpStacks writes what every goroutine is doing to standard error whenever SIGUSR1
// comes, as containerd does, and ends with ctx. Without it that signal ends a Go program.
func dumpStacks(ctx context.Context) (stop func()) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGUSR1)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-asked:
				writeStacks(ctx)
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		signal.Stop(asked)
		cancel()
		<-done
	}
}

// writeStacks writes the stacks, and after them a line that tells how many there are: who
// waits for that has them all.
func writeStacks(ctx context.Context) {
	goroutines := runtime.NumGoroutine()
	if err := pprof.Lookup("goroutine").WriteTo(os.Stderr, 2); err != nil {
		log.G(ctx).WithError(err).Warn("could not write the stacks of all goroutines")
		return
	}
	log.G(ctx).WithField("goroutines", goroutines).Info("wrote the stacks of all goroutines")
}
