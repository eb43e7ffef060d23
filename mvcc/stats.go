package mvcc

import (
	"sync/atomic"
	"time"
)

// counters only grow.
type counters struct {
	puts, deletes, ranges, txns   atomic.Int64
	flushes, flushedRecords       atomic.Int64
	flushNanos, putBytes          atomic.Int64
	compacted, compactTouched     atomic.Int64
	historyRecords, historyEvents atomic.Int64
}

func (c *counters) flushed(records int64, took time.Duration) {
	c.flushes.Add(1)
	c.flushedRecords.Add(records)
	c.flushNanos.Add(int64(took))
}

// Stats describe a store at one moment; the counters begin at Open.
type Stats struct {
	SizeBytes        int64 // allocated file
	InUseBytes       int64 // of it, not free
	Keys             int   // that exist
	IndexedKeys      int   // with the deleted ones that are not compacted
	UnflushedRecords int64
	UnflushedBytes   int
	TailRecords      int64
	TailBytes        int
	OpenReads        int // read transactions on the file
	Revision         Revision
	CompactRevision  Revision
	Flushed          Applied

	Puts, Deletes, Ranges, Txns int64
	PutBytes                    int64 // of the keys and values put
	Flushes, FlushedRecords     int64
	FlushTime                   time.Duration // all flushes together
	CompactedRevisions          int64
	HistoryRecords              int64 // looked at for watchers that were behind
	HistoryEvents               int64 // found in them
}

// Stats returns the figures of now.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	st := Stats{
		UnflushedRecords: s.tail.last - s.flushed,
		UnflushedBytes:   s.unflushedBytes,
		TailRecords:      s.tail.len(),
		TailBytes:        s.flushedBytes + s.unflushedBytes,
		Flushed:          s.flushedApplied,
	}
	d := s.disk
	s.mu.Unlock()
	v := s.view.Load()
	st.Revision, st.CompactRevision = v.rev, v.compact
	st.Keys, st.IndexedKeys = v.tree.live(), v.tree.keys
	st.SizeBytes, st.InUseBytes, st.OpenReads = d.size()
	c := &s.counts
	st.Puts, st.Deletes, st.Ranges, st.Txns = c.puts.Load(), c.deletes.Load(), c.ranges.Load(), c.txns.Load()
	st.PutBytes = c.putBytes.Load()
	st.Flushes, st.FlushedRecords = c.flushes.Load(), c.flushedRecords.Load()
	st.FlushTime = time.Duration(c.flushNanos.Load())
	st.CompactedRevisions = c.compacted.Load()
	st.HistoryRecords, st.HistoryEvents = c.historyRecords.Load(), c.historyEvents.Load()
	return st
}
