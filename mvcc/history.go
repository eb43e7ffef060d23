package mvcc

import (
	"bytes"
	"errors"

	bolt "go.etcd.io/bbolt"
)

// history returns the events of the keys [key, end) with from ≤ revision ≤ to,
// in order, and the revision to go on from. It looks at about recordsMax
// records and bytesMax bytes, at least at one whole revision, and never splits
// one. Events from the file carry no previous value.
func (s *Store) history(from, to Revision, key, end []byte, recordsMax, bytesMax int) ([]*Event, Revision, error) {
	for {
		v := s.view.Load()
		if from < v.compact {
			return nil, 0, ErrCompacted
		}
		sp, single := spanOf(key, end)
		w := historyWalk{span: sp, single: single, to: min(to, v.rev), records: recordsMax, bytes: bytesMax, next: from}
		err := w.run(v, from)
		s.counts.historyRecords.Add(int64(recordsMax - w.records))
		s.counts.historyEvents.Add(int64(len(w.events)))
		if errors.Is(err, errStale) && s.view.Load() != v {
			continue
		}
		if now := s.view.Load(); from < now.compact { // it may have been cut down while being read
			return nil, 0, ErrCompacted
		}
		if err != nil {
			return nil, 0, err
		}
		if w.full {
			return w.events, w.next, nil
		}
		return w.events, max(w.to, from-1) + 1, nil
	}
}

// historyWalk collects events from records in order.
type historyWalk struct {
	span           span
	single         bool
	to             Revision
	records, bytes int // what may still be looked at
	next           Revision
	full           bool
	events         []*Event
}

func (w *historyWalk) run(v *view, from Revision) error {
	first, ok := v.tail.begins()
	if !ok || from <= first.main { // the tail may begin inside a revision
		before := stamp{main: v.rev + 1}
		if ok {
			before = first
		}
		if err := v.disk.read(func(tx *bolt.Tx) error { return w.walkDisk(v, tx, from, before) }); err != nil {
			return err
		}
	}
	if !ok {
		return nil
	}
	for pos := v.tail.seek(stamp{main: from}); pos < v.tail.last && !w.full; pos++ {
		r := v.tail.get(pos)
		if !w.visit(r.at, r.data, false) {
			break
		}
	}
	return nil
}

func (w *historyWalk) walkDisk(v *view, tx *bolt.Tx, from Revision, before stamp) error {
	c := bucket(tx, BucketKey).Cursor()
	checks := v.disk.sums(tx)
	for k, data := c.Seek(stamp{main: from}.appendKey(nil)); k != nil; k, data = c.Next() {
		at, err := parseStamp(k)
		if err != nil {
			return err
		}
		if at.compare(before) >= 0 || at.main > w.to {
			break
		}
		if err := checks.check(at, k, data); err != nil {
			return err
		}
		if !w.visit(at, data, true) {
			break
		}
	}
	return nil
}

// visit looks at one record; false ends the walk. Bytes of the file are copied.
func (w *historyWalk) visit(at stamp, data []byte, transient bool) bool {
	if at.main > w.to {
		return false
	}
	if at.main > w.next && (w.records <= 0 || w.bytes <= 0) {
		w.next, w.full = at.main, true
		return false
	}
	w.next = at.main
	w.records--
	w.bytes -= len(data)
	head, err := decodeHead(data)
	if err != nil || !w.wants(head.key) {
		return true
	}
	e := &Event{kind: EventPut, rev: at.main, record: data}
	switch {
	case at.tomb:
		e.kind, e.record = EventDelete, toldTombstone(data, at.main)
	case transient:
		e.record = bytes.Clone(data)
	}
	if head, err = decodeHead(e.record); err == nil {
		e.key = head.key
		w.events = append(w.events, e)
	}
	return true
}

func (w *historyWalk) wants(key []byte) bool {
	k := stringOf(key)
	if w.single {
		return k == w.span.from
	}
	return k >= w.span.from && (w.span.open || k < w.span.to)
}

// valueAt returns the encoded KeyValue that the key had just before the
// revision, nil if it did not exist, or ErrCompacted.
func (s *Store) valueAt(key []byte, before Revision) ([]byte, error) {
	return settled(s, before-1, func(v *view) ([]byte, error) {
		if before-1 < v.compact {
			return nil, ErrCompacted
		}
		it := v.tree.get(stringOf(key))
		if it == nil {
			return nil, nil
		}
		at, ok := it.stampAt(before - 1)
		if !ok {
			return nil, nil
		}
		return v.record(at)
	})
}
