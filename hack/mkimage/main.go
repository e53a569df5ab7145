// SPDX-License-Identifier: Apache-2.0

// Mkimage writes a small image of several layers, whiteouts among them, as an
// archive for `ctr images import`. `make demo` runs it.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/strata-snapshotter/strata/internal/testimage"
)

func main() {
	output := flag.String("output", "image.tar", "archive to write")
	ref := flag.String("name", "strata.test/demo:latest", "the image's full name")
	busybox := flag.String("busybox", "", "statically linked busybox (default: look for one)")
	flag.Parse()
	if err := run(*output, *ref, *busybox); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run(output, ref, busybox string) error {
	if busybox == "" {
		found, err := testimage.FindBusybox(".cache/bin")
		if err != nil {
			return err
		}
		busybox = found
	}
	layers, err := testimage.Sample(busybox)
	if err != nil {
		return err
	}
	img, err := testimage.Build([]string{"/bin/sh"}, layers...)
	if err != nil {
		return err
	}
	return testimage.WriteArchive(output, ref, img)
}
