package mvcc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kvorum/kvorum/internal/crash"
	bolt "go.etcd.io/bbolt"
)

// flusherState belongs to whoever holds flushMu.
type flusherState struct {
	running   Revision      // compaction in progress, 0 if none
	copying   *copying      // the defragmentation under way, if any
	lastFlush time.Duration // how long the last commit took
}

// batch is what one flush writes.
type batch struct {
	tail     tail // its unflushed end
	from, to int64
	others   []otherWrite
	applied  Applied
	bytes    int
}

// Run flushes applied entries to the file and removes compacted revisions
// until ctx ends. It returns the first failure; a member whose flusher failed
// must stop, because its memory is ahead of a file that no longer follows.
func (s *Store) Run(ctx context.Context) error {
	timer := time.NewTicker(s.opts.FlushEvery)
	defer timer.Stop()
	pause := time.NewTimer(0) // runs between two compaction slices
	defer pause.Stop()
	for {
		compacting := false
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			s.anchors.tick()
		case <-s.wake:
		case <-pause.C:
			compacting = true
		}
		if err := s.Flush(); err != nil {
			return err
		}
		if !compacting && s.compactionRuns() {
			continue // its pause timer is set
		}
		more, err := s.compactSlice()
		if err != nil {
			return err
		}
		if more {
			pause.Reset(s.opts.CompactionPause)
		}
	}
}

// Flush commits everything up to the last Publish to the file. Any goroutine
// may call it. A failed commit is never retried.
func (s *Store) Flush() error {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	return s.flush()
}

// flush is Flush; flushMu is held.
func (s *Store) flush() error {
	s.mu.Lock()
	b, d, failed := s.takeBatch(), s.disk, s.failed
	clean := b.from == b.to && len(b.others) == 0 && b.applied == s.flushedApplied
	s.mu.Unlock()
	if failed != nil {
		return failed
	}
	if clean {
		return nil
	}
	crash.Here("beforeStartDBTxn")
	began := time.Now()
	var stats bolt.TxStats
	if err := d.update(b.write, &stats); err != nil {
		return s.fail(fmt.Errorf("write %s up to entry %d: %w", s.path, b.applied.Index, err))
	}
	b.committed()
	took := time.Since(began)
	s.flusher.lastFlush = took
	s.counts.flushed(b.to-b.from, took)
	s.observeCommit(took, stats)
	if c := s.flusher.copying; c != nil {
		c.others = append(c.others, b.others...)
	}
	s.flushDone(b)
	return nil
}

func (s *Store) takeBatch() batch {
	v := s.view.Load()
	return batch{
		tail: s.tail, from: s.flushed, to: s.published,
		others: s.others[:s.othersPublished:s.othersPublished], applied: v.applied,
	}
}

// write puts the batch into one transaction.
func (b *batch) write(tx *bolt.Tx) error {
	crash.Here("afterStartDBTxn")
	keys := bucket(tx, BucketKey)
	keys.FillPercent = fillPercent
	checks := newSumming(tx)
	var key [tombstoneSize]byte
	for pos := b.from; pos < b.to; pos++ {
		r := b.tail.get(pos)
		b.bytes += len(r.data)
		k := r.at.appendKey(key[:0])
		if err := keys.Put(k, r.data); err != nil {
			return fmt.Errorf("write record %d: %w", r.at.main, err)
		}
		if err := checks.add(r.at, k, r.data); err != nil {
			return err
		}
	}
	if err := checks.end(); err != nil {
		return err
	}
	if err := writeOthers(tx, b.others); err != nil {
		return err
	}
	crash.Here("commitBeforePreCommitHook")
	if err := writeApplied(tx, b.applied); err != nil {
		return err
	}
	crash.Here("commitAfterPreCommitHook")
	if crash.On && b.schedulesCompaction() {
		crash.Here("compactBeforeCommitScheduledCompact")
	}
	crash.Here("beforeCommit")
	return nil
}

// committed is the moment after the transaction.
func (b *batch) committed() {
	crash.Here("afterCommit")
	if crash.On && b.schedulesCompaction() {
		crash.Here("compactAfterCommitScheduledCompact")
	}
}

// schedulesCompaction reports whether the mark of a new compaction is written.
func (b *batch) schedulesCompaction() bool {
	return slices.ContainsFunc(b.others, func(o otherWrite) bool { return o.bucket == BucketMeta && string(o.key) == metaScheduled })
}

func writeOthers(tx *bolt.Tx, others []otherWrite) error {
	for _, o := range others {
		var err error
		if o.value == nil {
			err = bucket(tx, o.bucket).Delete(o.key)
		} else {
			err = bucket(tx, o.bucket).Put(o.key, o.value)
		}
		if err != nil {
			return fmt.Errorf("write to bucket %s: %w", o.bucket, err)
		}
		if err := sumOther(tx, o.bucket, o.key, o.value); err != nil {
			return err
		}
	}
	return nil
}

// flushDone tells the writer what is flushed now.
func (s *Store) flushDone(b batch) {
	s.mu.Lock()
	s.flushed = b.to
	s.flushedApplied = b.applied
	s.flushedBytes += b.bytes
	s.unflushedBytes -= b.bytes
	for _, o := range b.others {
		s.unflushedBytes -= len(o.key) + len(o.value)
	}
	s.others = s.others[len(b.others):]
	s.othersPublished -= len(b.others)
	if len(s.others) == 0 {
		s.others = nil
	}
	s.trimTail()
	s.republish()
	s.room.Broadcast()
	s.mu.Unlock()
}

// fail keeps the first failure, for ever.
func (s *Store) fail(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = err
	}
	s.room.Broadcast()
	return s.failed
}

// Close flushes what is published and closes the file. Run must have returned.
func (s *Store) Close() error {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	if s.closed.Load() {
		return nil
	}
	err := s.flush()
	s.closed.Store(true)
	s.mu.Lock()
	d := s.disk
	s.room.Broadcast()
	s.mu.Unlock()
	return errors.Join(err, d.db.Close())
}
