package bench

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	latencyMin = 1          // µs
	latencyMax = 60_000_000 // µs
	digits     = 3
	errorTexts = 20 // different texts kept; the rest are counted as "other"
)

// part is one class of operations of a load, such as the reads of a mixed one.
type part int

// recorder gathers what the workers saw. Workers write to shards; the collector alone reads them.
type recorder struct {
	shards []shard
}

// shard holds what some of the workers saw since the collector last came.
type shard struct {
	mu    sync.Mutex
	parts []*hdrhistogram.Histogram // guarded by mu
	items int64                     // guarded by mu
	bytes int64                     // guarded by mu
	fails map[string]int64          // guarded by mu
	_     [64]byte                  // shards do not share a cache line
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(latencyMin, latencyMax, digits)
}

// newRecorder makes room for that many parts; one shard serves several workers.
func newRecorder(shards, parts int) *recorder {
	r := &recorder{shards: make([]shard, shards)}
	for i := range r.shards {
		r.shards[i].fails = map[string]int64{}
		for range parts {
			r.shards[i].parts = append(r.shards[i].parts, newHistogram())
		}
	}
	return r
}

// shard is the one that a worker writes to.
func (r *recorder) shard(worker int) *shard { return &r.shards[worker%len(r.shards)] }

// done records one answered operation.
func (s *shard) done(p part, took time.Duration, items, bytes int) {
	us := min(max(took.Microseconds(), latencyMin), latencyMax)
	s.mu.Lock()
	_ = s.parts[p].RecordValue(us) // cannot fail: us is within the histogram's range
	s.items += int64(items)
	s.bytes += int64(bytes)
	s.mu.Unlock()
}

// failed records one operation that failed.
func (s *shard) failed(err error) {
	text := err.Error()
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.fails[text]; !known && len(s.fails) >= errorTexts {
		text = "other"
	}
	s.fails[text]++
}

// totals is what the collector has gathered. One goroutine.
type totals struct {
	parts  []*hdrhistogram.Histogram
	items  int64
	bytes  int64
	fails  map[string]int64
	points []Point
}

func newTotals(parts int) *totals {
	t := &totals{fails: map[string]int64{}}
	for range parts {
		t.parts = append(t.parts, newHistogram())
	}
	return t
}

// collect empties the shards into the totals and adds one point for the slice of time that has passed.
func (t *totals) collect(r *recorder, at, slice time.Duration) Point {
	all := newHistogram()
	errors := int64(0)
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		for p, h := range s.parts {
			if h.TotalCount() > 0 {
				t.parts[p].Merge(h)
				all.Merge(h)
				h.Reset()
			}
		}
		t.items, t.bytes = t.items+s.items, t.bytes+s.bytes
		s.items, s.bytes = 0, 0
		for text, n := range s.fails {
			t.fails[text] += n
			errors += n
			delete(s.fails, text)
		}
		s.mu.Unlock()
	}
	p := Point{
		Seconds: at.Seconds(), Operations: all.TotalCount(), Errors: errors,
		P50: ms(all.ValueAtQuantile(50)), P99: ms(all.ValueAtQuantile(99)), Max: ms(all.Max()),
	}
	if slice > 0 {
		p.Throughput = float64(p.Operations) / slice.Seconds()
	}
	t.points = append(t.points, p)
	return p
}

func ms(us int64) float64 { return float64(us) / 1000 }
