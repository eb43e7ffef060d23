package peer

import (
	"sync"

	"go.etcd.io/raft/v3/raftpb"
)

// queue holds the messages that wait for one link. It is open while somebody
// drains it. Any goroutine may put; the holder of the current session takes.
type queue struct {
	countMax, bytesMax int

	mu       sync.Mutex // guards what follows
	session  *session   // nil: closed
	msgs     []*raftpb.Message
	spare    []*raftpb.Message // the slice that was drained before, emptied
	bytes    int
	dropping bool // a drop was told since the last drain
}

// session is one holder of a queue, such as one stream that is attached.
type session struct {
	wake     chan struct{} // capacity 1; something waits
	replaced chan struct{} // closed when another session took the queue, or the peer ended
}

type putResult int

const (
	putDone       putResult = iota
	putClosed               // nobody drains the queue
	putDropped              // full, and that was told before
	putDroppedNew           // full; the first drop since the last drain
)

func newQueue(countMax, bytesMax int) *queue {
	return &queue{countMax: countMax, bytesMax: bytesMax}
}

// open takes the queue over. What waited for the former session is dropped: it
// belongs to a stream whose state is gone.
func (q *queue) open() *session {
	s := &session{wake: make(chan struct{}, 1), replaced: make(chan struct{})}
	q.mu.Lock()
	if q.session != nil {
		close(q.session.replaced)
	}
	q.session = s
	q.clear()
	q.mu.Unlock()
	return s
}

// close gives the queue up and reports whether s still held it.
func (q *queue) close(s *session) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.session != s {
		return false
	}
	q.session = nil
	q.clear()
	return true
}

// expel ends whatever session there is.
func (q *queue) expel() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.session != nil {
		close(q.session.replaced)
		q.session = nil
		q.clear()
	}
}

func (q *queue) isOpen() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.session != nil
}

// clear runs under mu.
func (q *queue) clear() {
	clear(q.msgs)
	q.msgs, q.bytes, q.dropping = q.msgs[:0], 0, false
}

func (q *queue) put(m *raftpb.Message) putResult {
	size := roughSize(m)
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.session == nil:
		return putClosed
	case len(q.msgs) >= q.countMax, len(q.msgs) > 0 && q.bytes+size > q.bytesMax:
		if q.dropping {
			return putDropped
		}
		q.dropping = true
		return putDroppedNew
	}
	q.msgs = append(q.msgs, m)
	q.bytes += size
	if len(q.msgs) == 1 {
		signal(q.session.wake)
	}
	return putDone
}

// drain takes everything; nil when s no longer holds the queue or nothing
// waits. The slice is the caller's until its next drain.
func (q *queue) drain(s *session) []*raftpb.Message {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.session != s || len(q.msgs) == 0 {
		return nil
	}
	msgs := q.msgs
	q.msgs, q.spare = q.spare[:0], nil
	q.bytes, q.dropping = 0, false
	return msgs
}

// recycle gives a drained slice back. The messages are let go.
func (q *queue) recycle(msgs []*raftpb.Message) {
	clear(msgs)
	q.mu.Lock()
	q.spare = msgs[:0]
	q.mu.Unlock()
}

// roughSize is a cheap bound on what a message holds in memory.
func roughSize(m *raftpb.Message) int {
	n := 64 + len(m.GetContext()) + len(m.GetSnapshot().GetData())
	for _, e := range m.GetEntries() {
		n += 32 + len(e.GetData())
	}
	return n
}
