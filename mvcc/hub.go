package mvcc

import (
	"sync"

	"github.com/kvorum/kvorum/internal/must"
	"github.com/kvorum/kvorum/internal/plant"
)

// history is what watching needs of the store: the past.
type history interface {
	// history returns the events of [key, end) (end as on the wire) with
	// from <= revision <= to in order, and the revision to go on from. It
	// looks at about recordsMax records and bytesMax bytes, at least at one
	// whole revision, and never splits one; next > from always, and next is
	// to+1 once all is read. A from below the compact revision is ErrCompacted.
	history(from, to Revision, key, end []byte, recordsMax, bytesMax int) (events []*Event, next Revision, err error)
	// valueAt returns the encoded mvccpb.KeyValue that key had just before
	// the revision, nil if it had none, or ErrCompacted.
	valueAt(key []byte, before Revision) ([]byte, error)
	// CompactRevision is the oldest revision that can still be read.
	CompactRevision() Revision
}

// hub tells watchers what happens.
//
// A watcher is live or behind:
//
//	           outbox of its stream full
//	    live ----------------------------> behind
//	in the index;       Next has read      has a cursor;
//	publish pushes <---------------------- Next reads history
//	                    up to the head
//
// Invariant: a live watcher has been given, or has in the outbox, every event
// up to current that it wants. A watcher that is behind has been given, or has
// in the outbox, every event before its cursor, and is not in the index: it
// costs publish nothing.
//
// Both steps between the two are made under mu, as is publish as a whole, so
// that no event falls between them. Locks are taken in the order hub.mu,
// WatchStream.mu, Event.mu; history is read under neither of the first two.
type hub struct {
	past history

	mu      sync.Mutex
	current Revision
	index   watchIndex // the live watchers
	streams map[*WatchStream]struct{}
	events  int64

	// Scratch of publish.
	groups  []*watchGroup
	staged  []watchStaged
	touched []*WatchStream
}

// watchStaged is an event on its way to a watcher. Those of one stream are
// linked, so that publish locks and wakes each stream once.
type watchStaged struct {
	watcher *watcher
	event   *Event
	next    int32 // 1-based position in staged, 0 = none
}

// hubScratchMax bounds what publish keeps for the next call, in entries.
const hubScratchMax = 64 << 10

// hubLockedMax bounds how many watchers change state under one hold of mu, so
// that a publish never waits for ten thousand of them.
const hubLockedMax = 64

// newHub makes a hub for a store that is at the revision current.
func newHub(past history, current Revision) *hub {
	return &hub{past: past, current: current, streams: make(map[*WatchStream]struct{})}
}

// publish hands the events of an applied batch, in order of revision, to the
// live watchers; rev is the current revision from now on. The caller has made
// the batch visible to readers before. Only the applier goroutine calls it.
//
// It costs O(log watchers) for each event and O(1) for each watcher that
// wants it; watchers that are behind, and streams that do not read, cost nothing.
func (h *hub) publish(rev Revision, events []*Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	must.True(rev >= h.current, "published revision %d after %d", rev, h.current)
	h.current = rev
	told := events
	if plant.Here(plant.SkipWatchEvent) {
		told = h.withoutSome(events)
	}
	h.events += int64(len(events))
	if h.index.size == 0 {
		return
	}
	for _, e := range told {
		h.stage(e)
	}
	for _, ws := range h.touched {
		ws.deliver(h.staged)
	}
	h.clearScratch()
}

// stage queues e for each live watcher that wants it. A batch reaches the
// outbox as a whole: a revision must not be seen half.
func (h *hub) stage(e *Event) {
	h.groups = h.index.match(e.key, h.groups[:0])
	for _, group := range h.groups {
		for _, w := range group.watchers {
			if !w.wants(e) {
				continue
			}
			h.staged = append(h.staged, watchStaged{watcher: w, event: e})
			at, ws := int32(len(h.staged)), w.stream
			if ws.stagedLast == 0 {
				h.touched = append(h.touched, ws)
				ws.stagedFirst = at
			} else {
				h.staged[ws.stagedLast-1].next = at
			}
			ws.stagedLast = at
		}
	}
}

// withoutSome is the planted bug SkipWatchEvent: one event in 200 is left out,
// not the same one on every member.
func (h *hub) withoutSome(events []*Event) []*Event {
	const every = 200
	var kept []*Event
	for i, e := range events {
		if (h.events+int64(i)+1)%every != 0 {
			kept = append(kept, e)
		}
	}
	return kept
}

// clearScratch drops the references of the last batch and keeps the memory,
// unless the batch was unusually large.
func (h *hub) clearScratch() {
	if cap(h.staged) > hubScratchMax {
		h.groups, h.staged, h.touched = nil, nil, nil
		return
	}
	clear(h.groups)
	clear(h.staged)
	clear(h.touched)
	h.groups, h.staged, h.touched = h.groups[:0], h.staged[:0], h.touched[:0]
}

// now is the current revision.
func (h *hub) now() Revision {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.current
}

// reset is called after the whole state was replaced by one at the revision
// current, by the applier goroutine, in place of a publish. What happened in
// between was never published, so every live watcher has to read it.
func (h *hub) reset(current Revision) {
	h.mu.Lock()
	defer h.mu.Unlock()
	must.True(current >= h.current, "state of revision %d installed over %d", current, h.current)
	seen := h.current
	h.current = current
	for ws := range h.streams {
		ws.mu.Lock()
		for _, w := range ws.watchers {
			if w.live {
				ws.fall(w, max(w.next, seen+1))
			}
		}
		ws.wakeUp()
		ws.mu.Unlock()
	}
}

// WatchStats counts what the hub holds.
type WatchStats struct {
	Streams  int
	Watchers int
	// Behind counts the watchers that read history.
	Behind int
	// Pending counts the events in outboxes, once for each watcher.
	Pending int
	// Events counts the events published since the start.
	Events int64
}

// stats counts; it looks at every stream.
func (h *hub) stats() WatchStats {
	h.mu.Lock()
	stats := WatchStats{Streams: len(h.streams), Events: h.events}
	streams := make([]*WatchStream, 0, len(h.streams))
	for ws := range h.streams {
		streams = append(streams, ws)
	}
	h.mu.Unlock()
	for _, ws := range streams {
		ws.mu.Lock()
		stats.Watchers += len(ws.watchers)
		stats.Behind += len(ws.behind)
		stats.Pending += ws.outbox.used
		ws.mu.Unlock()
	}
	return stats
}
