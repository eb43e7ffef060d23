package mvcc

import "math"

// WatchBatchKind says what a WatchBatch tells.
type WatchBatchKind uint8

// The kinds of batches.
const (
	// WatchEvents carries events of one watcher.
	WatchEvents WatchBatchKind = iota
	// WatchCreated answers an Add with Announce; Revision is the current one.
	WatchCreated
	// WatchCompacted says that the watcher has ended, because what it had to
	// read next is compacted; CompactRevision is set and Revision is 0.
	WatchCompacted
	// WatchProgress answers Progress: the client has every event of all its
	// watchers up to Revision. ID is -1.
	WatchProgress
	// WatchIdle answers Tick: the watchers named in Idle have every event up
	// to Revision and got none since the last tick.
	WatchIdle
	// WatchReply carries what was given to WatchStream.Reply.
	WatchReply
)

// WatchBatch is what Next returns: one thing to tell the client.
type WatchBatch struct {
	Kind WatchBatchKind
	// ID is the watcher.
	ID int64
	// Revision is for the header: that of the last event, or the one current
	// when history was read.
	Revision Revision
	// Events are whole revisions in order, at most 1000 of them.
	Events []*Event
	// PrevKV is what to give Event.Encoded.
	PrevKV bool
	// CompactRevision is set in a WatchCompacted.
	CompactRevision Revision
	// Idle are the watchers of a WatchIdle, ascending.
	Idle []int64
	// Reply is the value of a WatchReply.
	Reply any
}

// watchRevisionsMax is how many revisions one batch may hold.
const watchRevisionsMax = 1000

// watchBatchKept is how many events the reused batch keeps memory for while
// the stream is idle.
const watchBatchKept = 16

// clear drops the references to the last contents; an idle stream keeps
// little memory.
func (b *WatchBatch) clear(idle bool) {
	clear(b.Events)
	events, ids := b.Events[:0], b.Idle[:0]
	if idle && cap(events) > watchBatchKept {
		events = nil
	}
	if idle {
		ids = nil
	}
	*b = WatchBatch{Events: events, Idle: ids}
}

// watchNote is a batch without events that waits for its turn. All that was
// queued before it goes out before it.
type watchNote struct {
	kind  WatchBatchKind
	seq   uint64
	id    int64
	rev   Revision
	reply any
}

// barrier says whether the note promises that all events up to its revision
// went out before, and none after it.
func (n *watchNote) barrier() bool { return n.kind == WatchProgress || n.kind == WatchIdle }

// watchNotesMax is how many notes may wait before WaitRoom blocks.
const watchNotesMax = 128

// note queues a note; the caller holds mu.
func (ws *WatchStream) note(n watchNote) {
	ws.seq++
	n.seq = ws.seq
	ws.notes = append(ws.notes, n)
	if n.barrier() {
		ws.barriers++
	}
	ws.wakeUp()
}

// dropNote takes a note out; the caller holds mu.
func (ws *WatchStream) dropNote(i int) watchNote {
	n := ws.notes[i]
	if i == 0 {
		ws.notes[0] = watchNote{}
		ws.notes = ws.notes[1:]
	} else {
		ws.notes = append(ws.notes[:i], ws.notes[i+1:]...)
	}
	if len(ws.notes) == 0 {
		ws.notes = nil
	}
	if n.barrier() {
		ws.barriers--
	}
	if ws.room != nil && len(ws.notes) < watchNotesMax {
		close(ws.room)
		ws.room = nil
	}
	return n
}

// limit is the last revision that may go out before the first barrier.
func (ws *WatchStream) limit() Revision {
	if ws.barriers == 0 {
		return math.MaxInt64
	}
	i := 0
	for !ws.notes[i].barrier() {
		i++
	}
	return ws.notes[i].rev
}

// takeNote makes the first note the batch, or says what else to do for it;
// the caller holds mu.
func (ws *WatchStream) takeNote() watchTurn {
	n := ws.dropNote(0)
	ws.batch.Kind, ws.batch.ID, ws.batch.Revision = n.kind, n.id, n.rev
	switch n.kind {
	case WatchCompacted:
		ws.batch.Revision, ws.batch.CompactRevision = 0, n.rev
	case WatchProgress:
		for _, w := range ws.watchers {
			if !ws.handedOut(w, n.rev) {
				return watchTurnAskAgain
			}
		}
	case WatchIdle:
		ws.collectIdle(n)
		if len(ws.batch.Idle) == 0 {
			return watchTurnAgain
		}
	case WatchReply:
		ws.batch.Reply = n.reply
	}
	return watchTurnBatch
}

// handedOut says whether Next has returned every event of w up to rev.
func (ws *WatchStream) handedOut(w *watcher, rev Revision) bool {
	return w.syncedAt(rev) && (w.first == 0 || ws.outbox.entries[w.first-1].event.rev > rev)
}
