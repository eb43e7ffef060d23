package mvcc

import (
	"context"
	"slices"
	"sync"
)

// WatchStreamOptions are the bounds of a stream.
type WatchStreamOptions struct {
	// OutboxBytesMax bounds the events that wait to be taken by Next; a
	// watcher whose event does not fit falls behind. 0 is 1 MiB.
	OutboxBytesMax int
}

// watchOutboxBytes is the bound of an outbox when none was given.
const watchOutboxBytes = 1 << 20

// WatchStream is a set of watchers that tell one client. All that the client
// is to hear comes out of Next, in the order in which it may be sent: each
// event once, those of a watcher in order of revision, nothing left out.
//
// One goroutine calls Next; the other methods may be called from any.
type WatchStream struct {
	hub  *hub
	wake chan struct{} // one token, when Next waits and something came

	// Guarded by hub.mu: the events of the batch that is being published.
	stagedFirst, stagedLast int32

	mu       sync.Mutex
	closed   bool
	waiting  bool // Next waits, or is about to
	watchers map[int64]*watcher
	nextID   int64
	outbox   watchOutbox
	ready    watchReady
	seq      uint64 // the last place given in ready and notes
	notes    []watchNote
	barriers int           // how many of the notes are barriers
	room     chan struct{} // closed once notes has room; nil when nobody waits
	behind   []*watcher

	// Owned by the goroutine that calls Next.
	batch WatchBatch
	slice watchSlice
}

// Watch opens a stream for one client; it must be closed.
func (s *Store) Watch(o WatchStreamOptions) *WatchStream { return s.hub.newStream(o) }

// WatchStats counts streams, watchers and events.
func (s *Store) WatchStats() WatchStats { return s.hub.stats() }

// newStream opens a stream; it must be closed.
func (h *hub) newStream(o WatchStreamOptions) *WatchStream {
	if o.OutboxBytesMax == 0 {
		o.OutboxBytesMax = watchOutboxBytes
	}
	ws := &WatchStream{
		hub:      h,
		wake:     make(chan struct{}, 1),
		watchers: make(map[int64]*watcher),
		outbox:   watchOutbox{liveMax: o.OutboxBytesMax},
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.streams[ws] = struct{}{}
	return ws
}

// Add makes a watcher and returns its id and the current revision. A From
// that is compacted is no error: the watcher is made, and a WatchCompacted
// ends it. The errors are ErrEmptyWatchRange, ErrWatcherExists, ErrCompacted
// for a negative From, and ErrWatchStreamClosed; the id is then -1.
func (ws *WatchStream) Add(spec WatchSpec) (id int64, now Revision, err error) {
	w := &watcher{
		stream: ws, key: string(spec.Key), end: string(spec.End), from: spec.From,
		prevKV: spec.PrevKV, noPut: spec.NoPut, noDelete: spec.NoDelete,
	}
	if w.key == "" {
		w.key = "\x00"
	}
	ws.hub.mu.Lock()
	defer ws.hub.mu.Unlock()
	ws.mu.Lock()
	defer ws.mu.Unlock()
	now = ws.hub.current
	switch {
	case ws.closed:
		return -1, now, ErrWatchStreamClosed
	case spec.From < 0:
		return -1, now, ErrCompacted
	case w.end != "" && w.end != watchEndless && w.key >= w.end:
		return -1, now, ErrEmptyWatchRange
	}
	if w.id = spec.ID; spec.AutoID {
		w.id = ws.freeID()
	}
	if ws.watchers[w.id] != nil {
		return -1, now, ErrWatcherExists
	}
	ws.seq++
	w.made, w.born, w.next = ws.seq, now, spec.From
	if spec.From == 0 {
		w.next = now + 1
	}
	ws.watchers[w.id] = w
	if spec.Announce {
		ws.note(watchNote{kind: WatchCreated, id: w.id, rev: now})
	}
	if w.next > now {
		ws.goLive(w)
	} else {
		ws.goBehind(w)
	}
	return w.id, now, nil
}

// freeID counts up from 0, past the ids in use.
func (ws *WatchStream) freeID() int64 {
	for ws.watchers[ws.nextID] != nil {
		ws.nextID++
	}
	ws.nextID++
	return ws.nextID - 1
}

// goLive and goBehind put a watcher that is in neither state into one; the
// caller holds both locks.
func (ws *WatchStream) goLive(w *watcher) {
	w.live = true
	ws.hub.index.add(w)
}

func (ws *WatchStream) goBehind(w *watcher) {
	w.behindSlot, w.served = len(ws.behind), ws.slice.count
	ws.behind = append(ws.behind, w)
	ws.wakeUp()
}

// leaveBehind takes w out of behind; the caller holds mu.
func (ws *WatchStream) leaveBehind(w *watcher) {
	last := len(ws.behind) - 1
	ws.behind[last].behindSlot = w.behindSlot
	ws.behind[w.behindSlot] = ws.behind[last]
	ws.behind[last] = nil
	ws.behind = ws.behind[:last]
	if last == 0 {
		ws.behind = nil
	}
}

// fall turns the live watcher w behind with the cursor; what it has in the
// outbox before the cursor stays. The caller holds both locks.
func (ws *WatchStream) fall(w *watcher, cursor Revision) {
	ws.hub.index.remove(w)
	w.live, w.next = false, cursor
	ws.outbox.dropFrom(w, cursor)
	if w.first == 0 {
		ws.ready.remove(w)
	}
	ws.goBehind(w)
}

// Cancel ends a watcher, and drops what Next has not returned of it. It
// returns false if there is no such watcher.
func (ws *WatchStream) Cancel(id int64) bool {
	ws.hub.mu.Lock()
	defer ws.hub.mu.Unlock()
	ws.mu.Lock()
	defer ws.mu.Unlock()
	w := ws.watchers[id]
	if w == nil || ws.closed {
		return false
	}
	if w.live {
		ws.hub.index.remove(w)
		w.live = false
	} else {
		ws.leaveBehind(w)
	}
	ws.forget(w)
	return true
}

// forget drops a watcher that is neither live nor behind any more.
func (ws *WatchStream) forget(w *watcher) {
	w.gone = true
	ws.outbox.dropFrom(w, 0)
	ws.ready.remove(w)
	delete(ws.watchers, w.id)
}

// deliver moves the staged events of the stream into its outbox; publish
// calls it and holds hub.mu.
func (ws *WatchStream) deliver(staged []watchStaged) {
	first := ws.stagedFirst
	ws.stagedFirst, ws.stagedLast = 0, 0
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.closed {
		return
	}
	for at := first; at != 0; at = staged[at-1].next {
		w, e := staged[at-1].watcher, staged[at-1].event
		if !w.live {
			continue // fell behind earlier in this batch
		}
		if !ws.outbox.push(w, e) {
			ws.fall(w, e.rev)
			continue
		}
		ws.queue(w)
	}
	ws.wakeUp()
}

// queue puts w, which has events in the outbox, into the ready queue; the
// caller holds mu.
func (ws *WatchStream) queue(w *watcher) {
	if w.seq == 0 {
		ws.seq++
		ws.ready.push(w, ws.seq)
	}
}

// wakeUp lets a waiting Next look again; the caller holds mu.
func (ws *WatchStream) wakeUp() {
	if !ws.waiting {
		return
	}
	ws.waiting = false
	select {
	case ws.wake <- struct{}{}:
	default:
	}
}

// Synced says whether the watcher exists and is live.
func (ws *WatchStream) Synced(id int64) bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	w := ws.watchers[id]
	return w != nil && w.live
}

// Progress asks for a WatchProgress batch, which Next returns after all
// events up to its revision. It returns false, and nothing will come, unless
// all watchers of the stream are live and none waits for a future revision.
func (ws *WatchStream) Progress() bool {
	now := ws.lockNow()
	defer ws.mu.Unlock()
	if ws.closed || len(ws.watchers) == 0 || len(ws.behind) > 0 {
		return false
	}
	for _, w := range ws.watchers {
		if !w.syncedAt(now) {
			return false
		}
	}
	// Of many requests the first keeps its place and the last one moves: an
	// answer is never put off for ever, and two places bound the queue.
	asked, last := 0, 0
	for i := range ws.notes {
		if ws.notes[i].kind == WatchProgress {
			asked, last = asked+1, i
		}
	}
	if asked > 0 && ws.notes[last].rev == now {
		return true
	}
	if asked > 1 {
		ws.dropNote(last)
	}
	ws.note(watchNote{kind: WatchProgress, id: -1, rev: now})
	return true
}

// lockNow locks mu at a moment when the outbox holds all up to the current
// revision, and nothing after it, and returns that revision. The hub goes on
// meanwhile, as the caller looks at all watchers.
func (ws *WatchStream) lockNow() Revision {
	ws.hub.mu.Lock()
	defer ws.hub.mu.Unlock()
	ws.mu.Lock()
	return ws.hub.current
}

// Tick asks for a WatchIdle batch of the watchers that got no event since the
// last tick and are live. Nothing comes when there are none, and a tick that
// Next has not reached yet swallows the ones after it.
func (ws *WatchStream) Tick() {
	now := ws.lockNow()
	defer ws.mu.Unlock()
	queued := slices.ContainsFunc(ws.notes, func(n watchNote) bool { return n.kind == WatchIdle })
	if !ws.closed && !queued && len(ws.watchers) > 0 {
		ws.note(watchNote{kind: WatchIdle, rev: now})
	}
}

// collectIdle makes the batch of a tick and starts the next interval. A
// watcher made since the tick may not be announced yet. The caller holds mu.
func (ws *WatchStream) collectIdle(tick watchNote) {
	for id, w := range ws.watchers {
		if !w.active && w.made < tick.seq && ws.handedOut(w, tick.rev) {
			ws.batch.Idle = append(ws.batch.Idle, id)
		}
		w.active = false
	}
	slices.Sort(ws.batch.Idle)
}

// Reply queues an answer for the client, which Next returns after all that
// was queued before. A caller that answers requests calls WaitRoom before it
// reads the next one, so that a client which asks and does not read is held.
func (ws *WatchStream) Reply(v any) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if !ws.closed {
		ws.note(watchNote{kind: WatchReply, reply: v})
	}
}

// WaitRoom blocks while many replies and announcements wait for Next.
func (ws *WatchStream) WaitRoom(ctx context.Context) error {
	for {
		ws.mu.Lock()
		if ws.closed {
			ws.mu.Unlock()
			return ErrWatchStreamClosed
		}
		if len(ws.notes) < watchNotesMax {
			ws.mu.Unlock()
			return nil
		}
		if ws.room == nil {
			ws.room = make(chan struct{})
		}
		room := ws.room
		ws.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close ends all watchers and lets Next return ErrWatchStreamClosed.
func (ws *WatchStream) Close() {
	ws.mu.Lock()
	if ws.closed {
		ws.mu.Unlock()
		return
	}
	ws.closed = true
	var live []*watcher
	for _, w := range ws.watchers {
		w.gone = true
		if w.live {
			live = append(live, w)
		}
	}
	ws.watchers, ws.behind, ws.notes, ws.barriers = nil, nil, nil, 0
	ws.outbox, ws.ready = watchOutbox{}, watchReady{}
	if ws.room != nil {
		close(ws.room)
		ws.room = nil
	}
	ws.wakeUp()
	ws.mu.Unlock()

	for some := range slices.Chunk(live, hubLockedMax) {
		ws.hub.mu.Lock()
		for _, w := range some {
			ws.hub.index.remove(w)
		}
		ws.hub.mu.Unlock()
	}
	ws.hub.mu.Lock()
	delete(ws.hub.streams, ws)
	ws.hub.mu.Unlock()
}
