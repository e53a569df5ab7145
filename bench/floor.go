// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/strata-snapshotter/strata/internal/inflate"
)

// floors prints what no unpacker can be faster than: for each layer its decompression
// alone, its hash alone, and the same tree made from memory by one thread and by as
// many as there are processors.
func floors(ctx context.Context, o options, c *corpus, dir string, out io.Writer) (err error) {
	fs, err := newFilesystem(ctx, o, filepath.Join(dir, "floor"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fs.close()) }()
	threads := runtime.NumCPU()
	fmt.Fprintf(out, "corpus %s, %s, load %s; ms, medians of %d\n", o.corpus, o.fstype, loadAverage(), o.pairs)
	fmt.Fprintf(out, "%-8s %8s %8s %8s %9s %9s  %s\n", "layer", "inflate", "klauspost", "sha256", "create", fmt.Sprintf("create*%d", threads),
		"floor: max(inflate, all/CPUs)")
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		for _, format := range []string{"gz", "zst"} {
			if len(c.names([]string{name}, format)) == 0 || !o.run.MatchString(name+"/"+format) {
				continue
			}
			if err := floor(ctx, o, &layer{path: c.path(name, format), name: name, format: format}, fs, out); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

func floor(ctx context.Context, o options, l *layer, fs *filesystem, out io.Writer) error {
	if err := readThrough(l.path); err != nil {
		return err
	}
	own, err := median(ctx, o.pairs, func() (time.Duration, error) { return l.timeInflate(inflate.Own) })
	if err != nil {
		return err
	}
	other, err := median(ctx, o.pairs, func() (time.Duration, error) { return l.timeInflate(inflate.Klauspost) })
	if err != nil {
		return err
	}
	tree, err := loadTree(l)
	if err != nil {
		return err
	}
	hash, err := median(ctx, o.pairs, func() (time.Duration, error) { return timeHash(tree.size), nil })
	if err != nil {
		return err
	}
	threads := runtime.NumCPU()
	var create [2]float64
	for i, n := range []int{1, threads} {
		create[i], err = median(ctx, o.pairs, func() (time.Duration, error) { return tree.timeCreate(fs, n) })
		if err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "%-8s %8.0f %8.0f %8.0f %9.0f %9.0f  %.0f\n", l.name+"/"+l.format, own, other, hash, create[0], create[1],
		max(own, (own+hash+create[0])/float64(threads)))
	return nil
}

// median is that of n measurements in milliseconds.
func median(ctx context.Context, n int, measure func() (time.Duration, error)) (float64, error) {
	var values []float64
	for range n {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		d, err := measure()
		if err != nil {
			return 0, err
		}
		values = append(values, wallMS(sample{Wall: d}))
	}
	return spreadOf(values).Median, nil
}

func (l *layer) timeInflate(engine inflate.Engine) (_ time.Duration, err error) {
	f, err := os.Open(l.path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	start := time.Now()
	err = decompress(f, formats[l.format].inflate, engine, io.Discard)
	return time.Since(start), err
}

// timeHash hashes as many bytes as a layer has, from the cache.
func timeHash(size int64) time.Duration {
	chunk := slices.Repeat([]byte("strata!\n"), inflate.ChunkSize/8)
	hash := sha256.New()
	start := time.Now()
	for ; size > 0; size -= int64(len(chunk)) {
		_, _ = hash.Write(chunk[:min(size, int64(len(chunk)))]) // a hash never fails
	}
	return time.Since(start)
}
