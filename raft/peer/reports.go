package peer

import (
	"context"
	"sync"
	"time"
)

// reports carries news to the Receiver from goroutines that must not call it,
// such as the raft loop inside Send. It holds at most one item of each kind per
// member, so it cannot grow.
type reports struct {
	wake chan struct{} // capacity 1

	mu          sync.Mutex // guards what follows
	unreachable map[uint64]struct{}
	snapshots   map[uint64]bool
	removed     removal
}

type removal int

const (
	removalNone removal = iota
	removalPending
	removalTold
)

func newReports() *reports {
	return &reports{
		wake:        make(chan struct{}, 1),
		unreachable: map[uint64]struct{}{},
		snapshots:   map[uint64]bool{},
	}
}

func (r *reports) isUnreachable(id uint64) {
	r.mu.Lock()
	r.unreachable[id] = struct{}{}
	r.mu.Unlock()
	signal(r.wake)
}

func (r *reports) snapshotSent(id uint64, ok bool) {
	r.mu.Lock()
	r.snapshots[id] = ok
	r.mu.Unlock()
	signal(r.wake)
}

// selfRemoved reports whether this is the first to say so.
func (r *reports) selfRemoved() bool {
	r.mu.Lock()
	first := r.removed == removalNone
	if first {
		r.removed = removalPending
	}
	r.mu.Unlock()
	signal(r.wake)
	return first
}

// deliver calls the receiver until ctx ends.
func (r *reports) deliver(ctx context.Context, to Receiver) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		r.mu.Lock()
		unreachable, snapshots := r.unreachable, r.snapshots
		r.unreachable, r.snapshots = map[uint64]struct{}{}, map[uint64]bool{}
		tellRemoved := r.removed == removalPending
		if tellRemoved {
			r.removed = removalTold
		}
		r.mu.Unlock()
		for id := range unreachable {
			to.Unreachable(id)
		}
		for id, ok := range snapshots {
			to.SnapshotSent(id, ok)
		}
		if tellRemoved {
			to.SelfRemoved()
		}
	}
}

// signal wakes the one goroutine that waits on a channel of capacity 1.
func signal(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// sometimes lets each of a bounded number of log lines through once a minute.
type sometimes struct {
	mu   sync.Mutex // guards what follows
	last map[string]time.Time
}

func (s *sometimes) due(line string) bool {
	const linesMax, every = 256, time.Minute
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if last, ok := s.last[line]; ok && now.Sub(last) < every {
		return false
	}
	if s.last == nil || len(s.last) >= linesMax {
		s.last = map[string]time.Time{}
	}
	s.last[line] = now
	return true
}
