package mvcc

// watchOutbox holds the events that wait to be taken by Next: one list for
// each watcher, all in one array, so that an idle watcher holds no memory and
// a busy one allocates nothing.
type watchOutbox struct {
	entries []watchEntry
	free    int32 // first of the free entries, 1-based, 0 = none
	used    int
	// live is the size of the entries pushed by publish in bytes. A slice of
	// history has a bound of its own and does not count, so that reading the
	// past does not push live watchers behind.
	live    int
	liveMax int
}

type watchEntry struct {
	event *Event
	next  int32 // 1-based, 0 = none
	past  bool  // read from history
}

// watchEntryBytes is what an event in an outbox costs beside its own bytes.
const watchEntryBytes = 64

// watchOutboxKept is how many entries an empty outbox keeps memory for.
const watchOutboxKept = 256

func watchCost(e *Event) int { return watchEntryBytes + len(e.record) + len(e.prev) }

// push appends a live event to the list of w, or returns false if the outbox
// is full. One that is empty takes an event of any size.
func (o *watchOutbox) push(w *watcher, e *Event) bool {
	cost := watchCost(e)
	if o.live > 0 && o.live+cost > o.liveMax {
		return false
	}
	o.live += cost
	o.append(w, watchEntry{event: e})
	return true
}

// pushPast appends an event read from history to the list of w.
func (o *watchOutbox) pushPast(w *watcher, e *Event) {
	o.append(w, watchEntry{event: e, past: true})
}

func (o *watchOutbox) append(w *watcher, entry watchEntry) {
	at := o.free
	if at != 0 {
		o.free = o.entries[at-1].next
		o.entries[at-1] = entry
	} else {
		o.entries = append(o.entries, entry)
		at = int32(len(o.entries))
	}
	if w.last == 0 {
		w.first = at
	} else {
		o.entries[w.last-1].next = at
	}
	w.last = at
	o.used++
}

// release frees the entry at and returns the one after it.
func (o *watchOutbox) release(at int32) (next int32) {
	entry := &o.entries[at-1]
	next = entry.next
	if !entry.past {
		o.live -= watchCost(entry.event)
	}
	*entry = watchEntry{next: o.free}
	o.free = at
	o.used--
	if o.used == 0 {
		o.free = 0
		if cap(o.entries) > watchOutboxKept {
			o.entries = nil
		}
		o.entries = o.entries[:0]
	}
	return next
}

// take appends the events of w up to the revision limit, and of at most
// revisionsMax revisions, to events and releases them. A revision is never split.
func (o *watchOutbox) take(w *watcher, limit Revision, revisionsMax int, events []*Event) []*Event {
	var rev Revision
	for w.first != 0 {
		e := o.entries[w.first-1].event
		if e.rev != rev {
			if e.rev > limit || revisionsMax == 0 {
				return events
			}
			rev = e.rev
			revisionsMax--
		}
		events = append(events, e)
		w.first = o.release(w.first)
	}
	w.last = 0
	return events
}

// dropFrom releases the events of w from the revision on.
func (o *watchOutbox) dropFrom(w *watcher, from Revision) {
	at, kept := w.first, int32(0)
	for at != 0 && o.entries[at-1].event.rev < from {
		kept, at = at, o.entries[at-1].next
	}
	if kept == 0 {
		w.first = 0
	} else {
		o.entries[kept-1].next = 0
	}
	w.last = kept
	for at != 0 {
		at = o.release(at)
	}
}

// watchReady is the queue of the watchers that have events in the outbox.
type watchReady struct{ first, last *watcher }

// push puts w, which is not queued, at the end.
func (q *watchReady) push(w *watcher, seq uint64) {
	w.seq, w.readyPrev = seq, q.last
	if q.last == nil {
		q.first = w
	} else {
		q.last.readyNext = w
	}
	q.last = w
}

// remove takes w out, if it is queued.
func (q *watchReady) remove(w *watcher) {
	if w.seq == 0 {
		return
	}
	if w.readyPrev == nil {
		q.first = w.readyNext
	} else {
		w.readyPrev.readyNext = w.readyNext
	}
	if w.readyNext == nil {
		q.last = w.readyPrev
	} else {
		w.readyNext.readyPrev = w.readyPrev
	}
	w.seq, w.readyPrev, w.readyNext = 0, nil, nil
}
