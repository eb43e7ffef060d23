package wal_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/kvorum/kvorum/raft/wal"
	"go.etcd.io/raft/v3/raftpb"
)

func entries300(first uint64, n int) []*raftpb.Entry {
	var entries []*raftpb.Entry
	for i := range uint64(n) {
		entries = append(entries, newEntry(2, first+i, raftpb.EntryNormal, make([]byte, 300)))
	}
	return entries
}

// BenchmarkAppend writes without syncing; cuts are paid for where they fall.
func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l, err := wal.Create(wal.OS(), filepath.Join(b.TempDir(), "wal"), goldenMetadata)
			check(b, err)
			defer l.Close()
			entries := entries300(1, n)
			hs := newState(2, 1, 0)
			b.ReportAllocs()
			for b.Loop() {
				*hs.Commit++
				check(b, l.Append(hs, entries))
				if l.Stats().BytesWritten > 60_000_000*(l.Stats().Cuts+1) {
					b.StopTimer()
					check(b, l.Sync())
					check(b, l.Release(1<<62))
					b.StartTimer()
				}
			}
		})
	}
}

// BenchmarkAppendSync is what one turn of the log writer costs.
func BenchmarkAppendSync(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l, err := wal.Create(wal.OS(), filepath.Join(b.TempDir(), "wal"), goldenMetadata)
			check(b, err)
			defer l.Close()
			var cut, sync time.Duration
			l.Observe(time.Now, func(s wal.Step, took time.Duration) {
				switch s {
				case wal.StepCut:
					cut = max(cut, took)
				case wal.StepSync:
					sync = max(sync, took)
				}
			})
			entries := entries300(1, n)
			b.ReportAllocs()
			for b.Loop() {
				check(b, l.Append(nil, entries))
				check(b, l.Sync())
			}
			b.ReportMetric(float64(l.Stats().Cuts), "cuts")
			b.ReportMetric(float64(cut.Microseconds()), "worst-cut-µs")
			b.ReportMetric(float64(sync.Microseconds()), "worst-sync-µs")
		})
	}
}

// BenchmarkOpen reads 100,000 entries of 300 bytes.
func BenchmarkOpen(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "wal")
	l, err := wal.Create(wal.OS(), dir, goldenMetadata)
	check(b, err)
	for first := uint64(1); first <= 100_000; first += 1000 {
		check(b, l.Append(newState(2, 1, first), entries300(first, 1000)))
	}
	check(b, l.Close())
	b.ReportAllocs()
	for b.Loop() {
		l, c, err := wal.Open(wal.OS(), dir, wal.Snapshot{})
		check(b, err)
		if len(c.Entries) != 100_000 {
			b.Fatalf("%d entries", len(c.Entries))
		}
		check(b, l.Close())
	}
}
