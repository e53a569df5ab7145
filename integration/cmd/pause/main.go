// SPDX-License-Identifier: Apache-2.0

// Pause is the first process of the tests' pods: it holds the pod's namespaces until
// it is told to go. Statically built, it is all that its image has.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	<-stop
}
