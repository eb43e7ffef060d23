package server

import (
	"sync"
	"time"

	"github.com/kvorum/kvorum/server/state"
	"github.com/kvorum/kvorum/server/trace"
)

// waiterShards keeps proposers on different cores from meeting on one lock.
const waiterShards = 64

// waiters are the proposals of this member that are not yet answered, by
// request ID. Proposers register, the applier finishes, the clock expires.
type waiters struct {
	shards [waiterShards]waiterShard
	pool   sync.Pool
}

type waiterShard struct {
	mu sync.Mutex
	m  map[uint64]*waiter
}

// waiter is one proposal in flight. Whoever takes it out of its shard owns the
// only send on done.
type waiter struct {
	done    chan state.Result
	since   time.Time
	expires time.Time
	span    trace.Span // none when tracing is off
}

func newWaiters() *waiters {
	w := &waiters{pool: sync.Pool{New: func() any { return &waiter{done: make(chan state.Result, 1)} }}}
	for i := range w.shards {
		w.shards[i].m = make(map[uint64]*waiter)
	}
	return w
}

func (w *waiters) shard(id uint64) *waiterShard { return &w.shards[id%waiterShards] }

// add registers a proposal. The caller must take it back with put when it has
// received from done, or with remove.
func (w *waiters) add(id uint64, now, expires time.Time, span trace.Span) *waiter {
	e := w.pool.Get().(*waiter)
	e.since, e.expires, e.span = now, expires, span
	s := w.shard(id)
	s.mu.Lock()
	s.m[id] = e
	s.mu.Unlock()
	return e
}

// span is what a proposal in flight is traced by.
func (w *waiters) span(id uint64) trace.Span {
	s := w.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.m[id]; e != nil {
		return e.span
	}
	return trace.Span{}
}

func (w *waiters) take(id uint64) *waiter {
	s := w.shard(id)
	s.mu.Lock()
	e := s.m[id]
	if e != nil {
		delete(s.m, id)
	}
	s.mu.Unlock()
	return e
}

// finish hands the result to the proposer of id, if it is one of this member's.
func (w *waiters) finish(id uint64, r state.Result) {
	if e := w.take(id); e != nil {
		e.done <- r
	}
}

// remove gives up waiting. It reports false when the result is already on its
// way, in which case the caller must receive it.
func (w *waiters) remove(id uint64) bool { return w.take(id) != nil }

// put gives a waiter, received from or removed, back for reuse.
func (w *waiters) put(e *waiter) { w.pool.Put(e) }

// expire finishes with err every proposal whose time is up; err is called with
// the time at which the proposal was made.
func (w *waiters) expire(now time.Time, err func(since time.Time) error) {
	for i := range w.shards {
		s := &w.shards[i]
		var late []*waiter
		s.mu.Lock()
		for id, e := range s.m {
			if now.After(e.expires) {
				delete(s.m, id)
				late = append(late, e)
			}
		}
		s.mu.Unlock()
		for _, e := range late {
			e.done <- state.Result{Err: err(e.since)}
		}
	}
}

// len is the number of proposals in flight.
func (w *waiters) len() int {
	n := 0
	for i := range w.shards {
		s := &w.shards[i]
		s.mu.Lock()
		n += len(s.m)
		s.mu.Unlock()
	}
	return n
}
