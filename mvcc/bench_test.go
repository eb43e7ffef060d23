package mvcc

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

func benchKey(i int) []byte { return fmt.Appendf(nil, "/registry/pods/%08d", i) }

// fill puts n keys with 256-byte values.
func fill(t testing.TB, s *Store, n int) {
	t.Helper()
	value := make([]byte, 256)
	base := s.Applied().Index
	for i := range n {
		w := s.Write(Applied{base + uint64(i), 1})
		if _, err := w.Put(&pb.PutRequest{Key: benchKey(i), Value: value}); err != nil {
			t.Fatal(err)
		}
		w.Close()
		if i%1000 == 999 {
			s.Publish()
		}
	}
	s.Publish()
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
}

func benchOptions() Options {
	o := testOptions()
	o.UnflushedBytesMax = 8 << 30
	return o
}

// running starts the flusher for the time of the test.
func running(t testing.TB, s *Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkPut(b *testing.B) {
	for _, batch := range []int{1, 64} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			s := openTest(b, testOptions())
			fill(b, s, 100_000)
			running(b, s)
			value := make([]byte, 256)
			base := s.Applied().Index
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				w := s.Write(Applied{base + uint64(i), 1})
				if _, err := w.Put(&pb.PutRequest{Key: benchKey(i * 7919 % 100_000), Value: value}); err != nil {
					b.Fatal(err)
				}
				w.Close()
				if i++; i%batch == 0 {
					s.Publish()
				}
			}
		})
	}
}

func BenchmarkRange(b *testing.B) {
	s := openTest(b, benchOptions())
	fill(b, s, 1_000_000)
	one := &pb.RangeRequest{Key: benchKey(500_000)}
	newest := &pb.RangeRequest{Key: benchKey(999_999)}
	page := &pb.RangeRequest{Key: benchKey(300_000), RangeEnd: benchKey(400_000), Limit: 1000}
	tailPage := &pb.RangeRequest{Key: benchKey(950_000), RangeEnd: []byte{0}, Limit: 1000}
	pinned := &pb.RangeRequest{Key: benchKey(300_000), RangeEnd: []byte{0}, Limit: 1000}
	first, err := s.Range(pinned)
	if err != nil {
		b.Fatal(err)
	}
	pinned.Revision = first.Header.Revision
	fill(b, s, 1) // the pinned revision is not the newest any more
	count := &pb.RangeRequest{Key: []byte("/"), RangeEnd: []byte("0"), CountOnly: true}
	for _, c := range []struct {
		name string
		r    *pb.RangeRequest
	}{{"one/file", one}, {"one/tail", newest}, {"1000of100k/file", page}, {"1000of50k/tail", tailPage}, {"1000of700k/pinned", pinned}, {"count1M", count}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Range(c.r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOpen reports what a restart with a million keys costs, and how much
// memory the store then needs for each of them.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "db")
	s, err := Open(path, benchOptions())
	if err != nil {
		b.Fatal(err)
	}
	const n = 1_000_000
	fill(b, s, n)
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	s = nil
	for b.Loop() {
		b.StopTimer()
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		b.StartTimer()
		cpu := cpuTime()
		s, err = Open(path, benchOptions())
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric((cpuTime() - cpu).Seconds(), "cpu-s/open")
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "heap-B/key")
		s.Close()
		s = nil
		b.StartTimer()
	}
}

func BenchmarkCompact(b *testing.B) {
	s := openTest(b, benchOptions())
	fill(b, s, 200_000)
	for b.Loop() {
		b.StopTimer()
		fill(b, s, 20_000)
		w := s.Write(s.Applied())
		if err := w.Compact(s.Revision()); err != nil {
			b.Fatal(err)
		}
		w.Close()
		s.Publish()
		b.StartTimer()
		began := time.Now()
		finishCompactions(b, s)
		b.ReportMetric(float64(time.Since(began).Nanoseconds())/20_000, "ns/removed")
	}
}
