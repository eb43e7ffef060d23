package mvcc

import (
	"fmt"
	"slices"
	"time"

	"github.com/kvorum/kvorum/internal/crash"
	bolt "go.etcd.io/bbolt"
)

// A compaction to C is scheduled by Writer.Compact: its mark is flushed like
// any other write, so before anything is removed. The flusher then works
// through the garbage queue in slices; each takes at most one batch of
// entries, trims their keys in the index and removes the dropped records in
// one transaction. The last slice writes the finished mark. After a crash in
// between, Open finds scheduled > finished and begins again with the garbage
// that is left.

// compactionWaiter waits for the compaction to rev.
type compactionWaiter struct {
	rev  Revision
	done chan struct{}
}

// CompactionDone returns a channel that is closed once the compaction to rev
// is physically done and committed.
func (s *Store) CompactionDone(rev Revision) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	done := make(chan struct{})
	if s.finished >= rev {
		close(done)
		return done
	}
	s.waiters = append(s.waiters, compactionWaiter{rev, done})
	return done
}

// compactionRuns reports whether a compaction was begun and is not done.
func (s *Store) compactionRuns() bool {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	return s.flusher.running != 0
}

// CompactSlice does one slice of a scheduled compaction, as Run does between its
// pauses; more says that there is more to do. It is for simulations, in which
// nobody calls Run.
func (s *Store) CompactSlice() (more bool, err error) { return s.compactSlice() }

// compactSlice does one slice of the oldest scheduled compaction, if any. more
// says that there is more to do.
func (s *Store) compactSlice() (more bool, err error) {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	if s.flusher.copying != nil { // the copy must not miss a removal
		return s.hasTarget(), nil
	}
	target, begun, ok := s.beginCompaction()
	if !ok {
		return false, nil
	}
	if begun && s.opts.CompactHashes && target != s.resumedCompaction() {
		if err := s.hashCompaction(target); err != nil {
			return false, s.fail(fmt.Errorf("hash at compaction to revision %d: %w", target, err))
		}
	}
	began := time.Now()
	drops, last := s.trimIndex(target)
	s.observe(StepCompactIndex, began)
	began = time.Now()
	if err := s.removeRecords(drops, target, last); err != nil {
		return false, s.fail(fmt.Errorf("write %s, compacting to revision %d: %w", s.path, target, err))
	}
	s.observe(StepCompactFile, began)
	s.counts.compacted.Add(int64(len(drops)))
	if last {
		s.finishCompaction(target)
	}
	return s.hasTarget(), nil
}

// resumedCompaction is the compaction that a former run has begun, 0 if none.
func (s *Store) resumedCompaction() Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resumed
}

func (s *Store) hasTarget() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed == nil && len(s.targets) > 0
}

// beginCompaction returns the compaction to work on; begun says that this is its
// first slice. It is one whose mark is
// flushed, so the view, which came before the flush, knows it.
func (s *Store) beginCompaction() (target Revision, begun, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.targets) == 0 || s.failed != nil {
		return 0, false, false
	}
	target = s.targets[0]
	v := s.view.Load()
	if v.compact < target || len(s.others) > 0 && s.markUnflushed(target) {
		return 0, false, false
	}
	if begun = s.flusher.running != target; begun {
		s.flusher.running = target
		s.garbage.unhold()
	}
	return target, begun, true
}

// markUnflushed reports whether the mark of the compaction is still in memory only.
func (s *state) markUnflushed(target Revision) bool {
	mark := markOf(target)
	return slices.ContainsFunc(s.others, func(o otherWrite) bool {
		return o.bucket == BucketMeta && string(o.key) == metaScheduled && slices.Equal(o.value, mark)
	})
}

// trimLockedMax is how many keys are trimmed before the writer may go on.
const trimLockedMax = 64

// trimIndex takes one batch of garbage out of the index and returns the stamps
// of its records; last says that nothing is left to do.
func (s *Store) trimIndex(target Revision) (drops []stamp, last bool) {
	for n := 0; n < s.opts.CompactionBatch && len(drops) < s.opts.CompactionBatch && !last; n += trimLockedMax {
		drops, last = s.trimSome(target, min(trimLockedMax, s.opts.CompactionBatch-n), drops)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.republish()
	return drops, last
}

// trimSome trims up to n keys and appends what was dropped.
func (s *Store) trimSome(target Revision, n int, drops []stamp) (_ []stamp, last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		d, ok := s.garbage.pop(target)
		if !ok {
			return drops, true
		}
		s.counts.compactTouched.Add(1)
		drops = s.discard(d, target, drops)
	}
	return drops, false
}

// discard trims one key and appends what was dropped.
func (s *state) discard(d discard, target Revision, drops []stamp) []stamp {
	it := s.tree.get(d.key)
	if it == nil {
		return drops
	}
	left, dropped, held := it.trim(target)
	if held {
		s.garbage.hold(d)
	}
	switch {
	case left == nil:
		s.tree.remove(d.key)
	case left != it:
		s.tree.set(left)
	}
	return append(drops, dropped...)
}

// removeRecords deletes the records and, in the last slice, writes the
// finished mark.
func (s *Store) removeRecords(drops []stamp, target Revision, last bool) error {
	if len(drops) == 0 && !last {
		return nil
	}
	slices.SortFunc(drops, stamp.compare)
	s.mu.Lock()
	d := s.disk
	s.mu.Unlock()
	err := d.db.Update(func(tx *bolt.Tx) error {
		keys := bucket(tx, BucketKey)
		keys.FillPercent = fillPercent
		var key [tombstoneSize]byte
		for _, at := range drops {
			if err := keys.Delete(at.appendKey(key[:0])); err != nil {
				return fmt.Errorf("remove record %d: %w", at.main, err)
			}
		}
		if err := dropSums(tx, drops); err != nil {
			return err
		}
		if last {
			crash.Here("compactBeforeSetFinishedCompact")
			if err := bucket(tx, BucketMeta).Put([]byte(metaFinished), markOf(target)); err != nil {
				return fmt.Errorf("write finished mark: %w", err)
			}
			if err := sumOther(tx, BucketMeta, []byte(metaFinished), markOf(target)); err != nil {
				return err
			}
		}
		crash.Here("compactBeforeCommitBatch")
		return nil
	})
	if err == nil {
		crash.Here("compactAfterCommitBatch")
	}
	return err
}

func (s *Store) finishCompaction(target Revision) {
	crash.Here("compactAfterSetFinishedCompact")
	s.flusher.running = 0
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished = target
	s.targets = s.targets[1:]
	s.waiters = slices.DeleteFunc(s.waiters, func(w compactionWaiter) bool {
		if w.rev > target {
			return false
		}
		close(w.done)
		return true
	})
}
