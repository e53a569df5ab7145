// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"fmt"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"
)

// fillStore makes count committed snapshots with the names and labels that
// containerd's unpacker gives them, in chains of ten.
func fillStore(b *testing.B, s *Store, count int) {
	b.Helper()
	const batch = 1000
	parent := ""
	for done := 0; done < count; done += batch {
		err := s.Update(context.Background(), func(tx *Tx) error {
			for i := done; i < min(done+batch, count); i++ {
				n := uint64(1_000_000 + i)
				if i%10 == 0 {
					parent = ""
				}
				id := digest.FromString(fmt.Sprint(i))
				key := fmt.Sprintf("k8s.io/%d/extract-%d %s", 2*i, i, id)
				if _, err := tx.Create(Create{Number: n, Kind: snapshots.KindActive, Key: key, Parent: parent}); err != nil {
					return err
				}
				name := fmt.Sprintf("k8s.io/%d/%s", 2*i+1, id)
				labels := map[string]string{
					snapshots.LabelSnapshotRef:               id.String(),
					snapshots.LabelSnapshotDiffID:            digest.FromString(name).String(),
					"containerd.io/snapshot/parent-chain-id": digest.FromString(parent).String(),
				}
				if _, err := tx.Commit(Commit{Key: key, Name: name, Labels: labels, Layer: Layer{Number: n}}); err != nil {
					return err
				}
				parent = name
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStore shows whether calls depend on the number of snapshots, and how
// large the file gets. Writes include their fsync.
func BenchmarkStore(b *testing.B) {
	for _, count := range []int{100, 10_000, 100_000} {
		s := openStore(b)
		fillStore(b, s, count)
		size, err := s.Size()
		if err != nil {
			b.Fatal(err)
		}
		id := digest.FromString(fmt.Sprint(count / 2))
		name := fmt.Sprintf("k8s.io/%d/%s", count+1, id)
		filter := fmt.Sprintf(`labels.%q==%s,parent==""`, snapshots.LabelSnapshotRef, id)
		b.Run(fmt.Sprintf("get/%d", count), func(b *testing.B) {
			for b.Loop() {
				if _, err := get(s, name); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(size)/float64(count), "file-bytes/snapshot")
		})
		b.Run(fmt.Sprintf("by-ref/%d", count), func(b *testing.B) {
			for b.Loop() {
				if err := s.Walk(context.Background(), func(context.Context, Snapshot) error { return nil }, filter); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("create-remove/%d", count), func(b *testing.B) {
			for b.Loop() {
				if _, err := create(b, s, snapshots.KindActive, "key", name, nil); err != nil {
					b.Fatal(err)
				}
				if _, err := remove(s, "key"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRecover is how long it takes to open a store that was not closed, and whose log
// is ahead.
func BenchmarkRecover(b *testing.B) {
	for _, count := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			s := openAhead(b, b.TempDir())
			defer closeStore(b, s)
			fillStore(b, s, count)
			for b.Loop() {
				b.StopTimer()
				path := crashed(b, s)
				b.StartTimer()
				c, err := Open(path)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				closeStore(b, c)
				b.StartTimer()
			}
		})
	}
}
