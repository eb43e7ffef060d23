package mvcc

import (
	"fmt"
	"os"
	"runtime"
	"testing"
)

// benchWatchPublish publishes one event at a time to streams whose outbox is
// emptied outside the measured time.
func benchWatchPublish(b *testing.B, streams, perStream int, matching bool) {
	p := newWatchPast()
	var all []*WatchStream
	for i := range streams {
		ws := p.hub.newStream(WatchStreamOptions{OutboxBytesMax: 64 << 20})
		for j := range perStream {
			key := "key"
			if !matching {
				key = fmt.Sprintf("/registry/%05d/", i*perStream+j)
			}
			watchAdd(b, ws, WatchSpec{Key: []byte(key), End: []byte(key + "\xff")})
		}
		all = append(all, ws)
	}
	record := watchEvent(2, watchChange{key: "key", value: "a value of some length"}, nil).record
	rev := Revision(1)
	b.ReportAllocs()
	for b.Loop() {
		rev++
		p.hub.publish(rev, []*Event{{key: []byte("key"), rev: rev, record: record}})
		if matching && rev%64 == 0 {
			b.StopTimer()
			for _, ws := range all {
				for watchPeek(b, ws) != nil {
				}
			}
			b.StartTimer()
		}
	}
}

func BenchmarkWatchPublish(b *testing.B) {
	b.Run("no-watchers", func(b *testing.B) { benchWatchPublish(b, 0, 0, true) })
	b.Run("1-matching", func(b *testing.B) { benchWatchPublish(b, 1, 1, true) })
	b.Run("100-streams", func(b *testing.B) { benchWatchPublish(b, 100, 1, true) })
	b.Run("100-watchers", func(b *testing.B) { benchWatchPublish(b, 1, 100, true) })
	b.Run("10000-streams", func(b *testing.B) { benchWatchPublish(b, 10000, 1, true) })
	b.Run("10000-watchers", func(b *testing.B) { benchWatchPublish(b, 1, 10000, true) })
	b.Run("10000-others", func(b *testing.B) { benchWatchPublish(b, 100, 100, false) })
}

// BenchmarkWatchPublishWhileBehind shows that watchers that are behind cost a publish nothing.
func BenchmarkWatchPublishWhileBehind(b *testing.B) {
	p := newWatchPast()
	p.put("key")
	ws := p.hub.newStream(WatchStreamOptions{})
	for range 10000 {
		watchAdd(b, ws, WatchSpec{Key: []byte("key"), From: 1})
	}
	record := watchEvent(2, watchChange{key: "key", value: "a value of some length"}, nil).record
	rev := p.now
	b.ReportAllocs()
	for b.Loop() {
		rev++
		p.hub.publish(rev, []*Event{{key: []byte("key"), rev: rev, record: record}})
	}
}

// BenchmarkWatchNext is one event from publish to the client's batch.
func BenchmarkWatchNext(b *testing.B) {
	p := newWatchPast()
	ws := p.hub.newStream(WatchStreamOptions{})
	watchAdd(b, ws, WatchSpec{Key: []byte("key")})
	record := watchEvent(2, watchChange{key: "key", value: "a value of some length"}, nil).record
	rev := Revision(1)
	b.ReportAllocs()
	for b.Loop() {
		rev++
		p.hub.publish(rev, []*Event{{key: []byte("key"), rev: rev, record: record}})
		if batch, err := ws.Next(b.Context()); err != nil || batch.Revision != rev {
			b.Fatal(batch, err)
		}
	}
}

// BenchmarkWatchCatchUp is the cost of an event that is read from history.
func BenchmarkWatchCatchUp(b *testing.B) {
	const revisions = 10000
	p := newWatchPast()
	for range revisions {
		p.put("key")
	}
	b.ReportAllocs()
	for b.Loop() {
		ws := p.hub.newStream(WatchStreamOptions{})
		watchAdd(b, ws, WatchSpec{Key: []byte("key"), From: 1})
		for watchPeek(b, ws) != nil {
		}
		ws.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/revisions, "ns/event")
}

// BenchmarkWatchIdleBytes reports what an idle watcher keeps in memory.
func BenchmarkWatchIdleBytes(b *testing.B) {
	if os.Getenv("KVORUM_LONG") == "" {
		b.Skip("set KVORUM_LONG=1")
	}
	for _, shape := range []struct {
		name               string
		streams, perStream int
		end                string
	}{
		{"own-stream-key", 10000, 1, ""},
		{"own-stream-prefix", 10000, 1, "\xff"},
		{"one-stream-key", 1, 10000, ""},
		{"one-stream-prefix", 1, 10000, "\xff"},
	} {
		b.Run(shape.name, func(b *testing.B) {
			heap := func() int64 {
				var stats runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&stats)
				return int64(stats.HeapAlloc)
			}
			for b.Loop() {
				before := heap()
				p := newWatchPast()
				for i := range shape.streams {
					ws := p.hub.newStream(WatchStreamOptions{})
					for j := range shape.perStream {
						key := fmt.Sprintf("/registry/%05d/", i*shape.perStream+j)
						spec := WatchSpec{Key: []byte(key)}
						if shape.end != "" {
							spec.End = []byte(key + shape.end)
						}
						watchAdd(b, ws, spec)
					}
				}
				b.ReportMetric(float64(heap()-before)/10000, "B/watcher")
				runtime.KeepAlive(p)
			}
		})
	}
}
