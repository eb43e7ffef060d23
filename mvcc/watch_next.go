package mvcc

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/kvorum/kvorum/internal/must"
)

// watchTurn is what Next does next.
type watchTurn uint8

const (
	watchTurnWait     watchTurn = iota // nothing to tell
	watchTurnBatch                     // return the batch
	watchTurnRead                      // read a slice of history
	watchTurnAgain                     // look again
	watchTurnAskAgain                  // the progress was asked for before a watcher that came since
	watchTurnClosed
)

// Next returns the next thing to tell the client, and blocks until there is
// one. The batch belongs to the caller until the next call. Events are ready
// to be encoded as Batch.PrevKV says.
//
// It is also where watchers that are behind read history, one slice at a
// time. A slice is read when all that was queued before the last slice has
// gone out: neither can live watchers be delayed by more than a slice, nor
// watchers that are behind by more than an outbox.
//
// The errors are that of ctx and ErrWatchStreamClosed; any other means that
// history could not be read, and the stream must be closed.
func (ws *WatchStream) Next(ctx context.Context) (*WatchBatch, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		switch ws.turn() {
		case watchTurnBatch:
			for _, e := range ws.batch.Events {
				if err := e.prepare(ws.hub.past, ws.batch.PrevKV); err != nil {
					return nil, err
				}
			}
			return &ws.batch, nil
		case watchTurnRead:
			if err := ws.readSlice(); err != nil {
				return nil, err
			}
		case watchTurnAskAgain:
			ws.Progress()
		case watchTurnClosed:
			return nil, ErrWatchStreamClosed
		case watchTurnWait:
			select {
			case <-ws.wake:
				// Who else is ready goes first: what it publishes goes out in
				// the same answer, and an answer costs more than an event.
				runtime.Gosched()
			case <-ctx.Done():
			}
		}
	}
}

// turn decides what to do, and takes it if it is in the outbox.
func (ws *WatchStream) turn() watchTurn {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.batch.clear(false)
	first := ws.ready.first
	noteFirst := len(ws.notes) > 0 && (first == nil || first.seq > ws.notes[0].seq)
	switch {
	case ws.closed:
		return watchTurnClosed
	case ws.sliceDue(first, noteFirst) && ws.gather():
		return watchTurnRead
	case noteFirst:
		return ws.takeNote()
	case first != nil:
		ws.takeEvents(first)
		return watchTurnBatch
	}
	ws.batch.clear(true)
	ws.slice.rest(true)
	ws.waiting = true
	return watchTurnWait
}

// takeEvents makes the batch of w, the first that is ready; the caller holds mu.
func (ws *WatchStream) takeEvents(w *watcher) {
	ws.ready.remove(w)
	b := &ws.batch
	b.Events = ws.outbox.take(w, ws.limit(), watchRevisionsMax, b.Events)
	must.True(len(b.Events) > 0, "watcher %d is ready without events", w.id)
	if w.first != 0 {
		ws.queue(w)
	}
	w.active = true
	b.Kind, b.ID, b.PrevKV = WatchEvents, w.id, w.prevKV
	b.Revision = max(b.Events[len(b.Events)-1].rev, w.header)
}

// The bounds of a slice of history.
const (
	watchSliceRecordsMax  = 1000
	watchSliceRecordsMin  = 16
	watchSliceBytesMax    = 256 << 10
	watchSliceWatchersMax = 1000
)

// watchSlice is one reading of history, which serves all watchers of the
// stream whose cursor it passes: ten thousand that fell behind together read
// together.
type watchSlice struct {
	count   uint64 // slices begun; guarded by WatchStream.mu
	seq     uint64 // what is queued up to here goes out before the next slice
	records int    // how many records to read; less when many watchers share them

	watchers []*watcher
	from     Revision
	key, end string

	pairs []watchStaged
}

// sliceDue says whether the turn has come to read; the caller holds mu. No
// history is read past a barrier.
func (ws *WatchStream) sliceDue(first *watcher, noteFirst bool) bool {
	switch {
	case len(ws.behind) == 0 || ws.barriers > 0:
		return false
	case noteFirst:
		return ws.notes[0].seq > ws.slice.seq
	}
	return first == nil || first.seq > ws.slice.seq
}

// gather chooses who takes part in the next slice: the watcher that waited
// longest, and those whose cursor is at most a slice after its own. It returns
// false if all have events in the outbox still. The caller holds mu.
func (ws *WatchStream) gather() bool {
	s := &ws.slice
	s.seq = ws.seq
	var first *watcher
	for _, w := range ws.behind {
		if w.first == 0 && (first == nil || w.served < first.served) {
			first = w
		}
	}
	if first == nil {
		return false
	}
	if s.records == 0 {
		s.records = watchSliceRecordsMax
	}
	s.count++
	s.from, s.key, s.end = first.next, first.key, first.end
	s.watchers = append(s.watchers[:0], first)
	for _, w := range ws.behind {
		if len(s.watchers) == watchSliceWatchersMax {
			break
		}
		if w != first && w.first == 0 && w.next >= s.from && w.next < s.from+watchSliceRecordsMax {
			s.watchers = append(s.watchers, w)
			s.widen(w.key, w.end)
		}
	}
	for _, w := range s.watchers {
		w.served = s.count
	}
	return true
}

// widen makes the range of the slice hold that of another watcher.
func (s *watchSlice) widen(key, end string) {
	if key == s.key && end == s.end {
		return
	}
	if s.end == "" {
		s.end = s.key + "\x00"
	}
	if end == "" {
		end = key + "\x00"
	}
	s.key, s.end = min(s.key, key), watchEndMax(s.end, end)
}

// readSlice reads the slice that gather chose, queues what it finds, and
// turns the watchers live that have reached the head.
func (ws *WatchStream) readSlice() error {
	s, to := &ws.slice, ws.hub.now()
	next := s.from
	if s.from <= to {
		events, after, err := ws.hub.past.history(s.from, to, []byte(s.key), []byte(s.end), s.records, watchSliceBytesMax)
		if errors.Is(err, ErrCompacted) {
			return ws.endCompacted()
		}
		if err != nil {
			return fmt.Errorf("read history from revision %d: %w", s.from, err)
		}
		must.True(after > s.from && after <= to+1, "history of %d to %d goes on at %d", s.from, to, after)
		next = s.pair(events, after)
	}
	ws.queueSlice(to, next)
	if next > to {
		ws.rejoin()
	}
	s.rest(false)
	return nil
}

// pair matches events and watchers, and stops before the revision at which
// enough is found for one slice; it returns the revision to go on from.
func (s *watchSlice) pair(events []*Event, next Revision) Revision {
	var index watchIndex
	if len(s.watchers) > 1 {
		for _, w := range s.watchers {
			index.add(w)
		}
	}
	var groups []*watchGroup
	cost := 0
	for i, e := range events {
		if cost >= watchSliceBytesMax && e.rev != events[i-1].rev {
			s.records = max(watchSliceRecordsMin, min(2*i, watchSliceRecordsMax))
			return e.rev
		}
		before := len(s.pairs)
		if len(s.watchers) == 1 {
			s.pairOne(s.watchers[0], e)
		} else {
			groups = index.match(e.key, groups[:0])
			for _, group := range groups {
				for _, w := range group.watchers {
					s.pairOne(w, e)
				}
			}
		}
		cost += (len(s.pairs) - before) * watchCost(e)
	}
	s.records = min(2*s.records, watchSliceRecordsMax)
	return next
}

func (s *watchSlice) pairOne(w *watcher, e *Event) {
	if w.wants(e) {
		s.pairs = append(s.pairs, watchStaged{watcher: w, event: e})
	}
}

// queueSlice puts the found events into the outbox and moves the cursors.
func (ws *WatchStream) queueSlice(to, next Revision) {
	s := &ws.slice
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.closed {
		return
	}
	for _, p := range s.pairs {
		if !p.watcher.gone {
			ws.outbox.pushPast(p.watcher, p.event)
			ws.queue(p.watcher)
		}
	}
	for _, w := range s.watchers {
		w.next, w.header = max(w.next, next), to
	}
	s.seq = ws.seq
}

// rejoin turns the watchers of the slice live whose cursor is past the
// current revision. What was published since the slice was read keeps the
// others behind; the next slice is short.
func (ws *WatchStream) rejoin() {
	for some := range slices.Chunk(ws.slice.watchers, hubLockedMax) {
		ws.hub.mu.Lock()
		ws.mu.Lock()
		for _, w := range some {
			if !ws.closed && !w.gone && w.next > ws.hub.current {
				ws.leaveBehind(w)
				ws.goLive(w)
			}
		}
		ws.mu.Unlock()
		ws.hub.mu.Unlock()
	}
}

// rest drops the references of the slice, and all memory once nobody is behind.
func (s *watchSlice) rest(done bool) {
	clear(s.watchers)
	clear(s.pairs)
	s.watchers, s.pairs = s.watchers[:0], s.pairs[:0]
	if done {
		s.watchers, s.pairs = nil, nil
	}
}

// endCompacted ends the watchers of the slice whose cursor is compacted.
func (ws *WatchStream) endCompacted() error {
	s, compacted := &ws.slice, ws.hub.past.CompactRevision()
	if compacted <= s.from {
		return fmt.Errorf("read history from revision %d, compacted to %d: %w", s.from, compacted, ErrCompacted)
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, w := range s.watchers {
		if !ws.closed && !w.gone && w.next < compacted {
			ws.leaveBehind(w)
			ws.forget(w)
			ws.note(watchNote{kind: WatchCompacted, id: w.id, rev: compacted})
		}
	}
	s.rest(false)
	return nil
}
