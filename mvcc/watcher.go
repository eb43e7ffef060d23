package mvcc

// WatchSpec says what to watch.
type WatchSpec struct {
	// ID names the watcher in its stream, unless AutoID asks for the next free one.
	ID     int64
	AutoID bool
	// Key and End are a range as on the wire: no End is the one key, an End
	// of "\0" is all keys from Key, an empty Key is "\0".
	Key, End []byte
	// From is the first revision to report; 0 is the one after the current.
	// It may lie in the future.
	From Revision
	// PrevKV asks for the value before each change.
	PrevKV bool
	// NoPut and NoDelete leave out events of that kind.
	NoPut, NoDelete bool
	// Announce asks for a WatchCreated batch, which Next returns before
	// anything else of this watcher.
	Announce bool
}

// watcher is one watch of a stream.
//
// What the spec said never changes. group and slot belong to the index that
// holds the watcher. The rest is guarded by stream.mu; live and next change
// under hub.mu too, or while behind by the goroutine that calls Next, so
// either of these may read them without the other lock.
type watcher struct {
	stream                  *WatchStream
	id                      int64
	key, end                string
	from                    Revision // as asked; 0 = after born
	born                    Revision // the current revision at creation
	made                    uint64   // the place in the queues at creation
	prevKV, noPut, noDelete bool

	live   bool // in the index of the hub
	gone   bool // canceled, closed or compacted
	active bool // got an event since the last tick

	next   Revision // live: ignores events before it; behind: the cursor
	header Revision // the revision that was current when history was read last

	group *watchGroup
	slot  int

	first, last int32 // events in the outbox

	// Links of the ready queue; seq is the place in it, 0 = not queued.
	seq                  uint64
	readyPrev, readyNext *watcher

	behindSlot int
	served     uint64 // the last slice of history that it took part in
}

// wants says whether a watcher of the event's key wants the event.
func (w *watcher) wants(e *Event) bool {
	if e.rev < w.next {
		return false
	}
	if e.kind == EventPut {
		return !w.noPut
	}
	return !w.noDelete
}

// syncedAt says whether every event up to rev has been put into the outbox,
// and the watcher is not waiting for a future revision.
func (w *watcher) syncedAt(rev Revision) bool {
	return (w.live || w.next > rev) && w.from <= rev && w.born <= rev
}
