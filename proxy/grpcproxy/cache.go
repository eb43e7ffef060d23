package grpcproxy

import (
	"bytes"
	"container/list"
	"sync"
	"time"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// Limits of the cache. An answer is given again for cacheAgeMax: writes that do
// not come through this proxy are not seen, and a serializable read may be old
// but should not stay so.
const (
	cacheAnswersMax     = 2048
	cacheAnswerBytesMax = 1 << 20
	cacheBytesMax       = 64 << 20
	cacheAgeMax         = 5 * time.Second
)

// span is a range of keys: one key if end is empty, all from key on if it is \0.
type span struct{ key, end []byte }

func (s span) overlaps(o span) bool { return s.reaches(o.key) && o.reaches(s.key) }

// reaches tells whether the span ends after key.
func (s span) reaches(key []byte) bool {
	switch {
	case len(s.end) == 0:
		return bytes.Compare(key, s.key) <= 0
	case len(s.end) == 1 && s.end[0] == 0:
		return true
	}
	return bytes.Compare(key, s.end) < 0
}

// cache holds answers to serializable reads, the least recently used last. All
// methods may be called from any goroutine.
//
// Invariant: no answer is given out that was read before a write of which
// forget has been told, as far as their keys overlap.
type cache struct {
	now func() time.Time

	mu        sync.Mutex
	answers   map[cacheKey]*list.Element // guarded by mu; of *answer
	recent    *list.List                 // guarded by mu
	bytes     int                        // guarded by mu
	reading   map[*reading]bool          // guarded by mu: questions on their way
	compacted int64                      // guarded by mu
	hits      int                        // guarded by mu
	misses    int                        // guarded by mu
}

// cacheKey is a question: the request's bytes, and who asks.
type cacheKey struct {
	who     caller
	request string
}

type answer struct {
	key      cacheKey
	span     span
	revision int64 // asked for; 0 is the newest
	response *pb.RangeResponse
	bytes    int
	at       time.Time
}

// reading is a question that a member has been asked.
type reading struct {
	key      cacheKey
	span     span
	revision int64
	stale    bool // guarded by cache.mu: a write came between
}

func newCache(now func() time.Time) *cache {
	return &cache{now: now, answers: map[cacheKey]*list.Element{}, recent: list.New(), reading: map[*reading]bool{}}
}

// get gives the answer if it is there, or a reading to end with put or drop.
// The answer must not be changed.
func (c *cache) get(who caller, r *pb.RangeRequest) (*pb.RangeResponse, *reading) {
	text, err := r.MarshalVT()
	if err != nil {
		return nil, &reading{stale: true}
	}
	key := cacheKey{who, string(text)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.answers[key]; e != nil {
		a := e.Value.(*answer)
		if c.now().Sub(a.at) < cacheAgeMax {
			c.recent.MoveToFront(e)
			c.hits++
			return a.response, nil
		}
		c.remove(e)
	}
	c.misses++
	q := &reading{key: key, span: span{r.Key, r.RangeEnd}, revision: r.Revision}
	c.reading[q] = true
	return nil, q
}

// put ends a reading with its answer, which must not be changed any more.
func (c *cache) put(q *reading, r *pb.RangeResponse) {
	size := r.SizeVT() + len(q.key.request)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.reading, q)
	if q.stale || size > cacheAnswerBytesMax || q.revision > 0 && q.revision < c.compacted {
		return
	}
	if old := c.answers[q.key]; old != nil {
		c.remove(old)
	}
	a := &answer{key: q.key, span: q.span, revision: q.revision, response: r, bytes: size, at: c.now()}
	c.answers[q.key] = c.recent.PushFront(a)
	c.bytes += size
	for c.recent.Len() > cacheAnswersMax || c.bytes > cacheBytesMax {
		c.remove(c.recent.Back())
	}
}

// drop ends a reading without an answer.
func (c *cache) drop(q *reading) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.reading, q)
}

// remove takes an answer out; c.mu is held.
func (c *cache) remove(e *list.Element) {
	a := c.recent.Remove(e).(*answer)
	delete(c.answers, a.key)
	c.bytes -= a.bytes
}

// forget drops what a write to s has changed. Reads at a revision stay.
func (c *cache) forget(spans ...span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range spans {
		for e := c.recent.Front(); e != nil; {
			next := e.Next()
			if a := e.Value.(*answer); a.revision <= 0 && a.span.overlaps(s) {
				c.remove(e)
			}
			e = next
		}
		for q := range c.reading {
			q.stale = q.stale || q.revision <= 0 && q.span.overlaps(s)
		}
	}
}

// compact drops the answers that a member would not give any more.
func (c *cache) compact(revision int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.compacted = max(c.compacted, revision)
	for e := c.recent.Front(); e != nil; {
		next := e.Next()
		if a := e.Value.(*answer); a.revision > 0 && a.revision < c.compacted {
			c.remove(e)
		}
		e = next
	}
}

// stats are the figures for metrics.
func (c *cache) stats() (answers, hits, misses int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.recent.Len(), c.hits, c.misses
}

// everything is the span of all keys.
func everything() span { return span{[]byte{0}, []byte{0}} }

// writes are the spans that a transaction may change.
func writes(r *pb.TxnRequest) (all []span) {
	for _, branch := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range branch {
			switch u := op.Request.(type) {
			case *pb.RequestOp_RequestPut:
				all = append(all, span{key: u.RequestPut.Key})
			case *pb.RequestOp_RequestDeleteRange:
				all = append(all, span{u.RequestDeleteRange.Key, u.RequestDeleteRange.RangeEnd})
			case *pb.RequestOp_RequestTxn:
				all = append(all, writes(u.RequestTxn)...)
			}
		}
	}
	return all
}
