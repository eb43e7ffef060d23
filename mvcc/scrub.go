package mvcc

import (
	"context"
	"fmt"
	"math"
	"time"

	bolt "go.etcd.io/bbolt"
)

// scrubSliceBytes are checked in one read transaction, so that none is open long
// enough to keep old pages from being used again.
const scrubSliceBytes = 1 << 20

// ScrubProgress is told to the caller of Scrub after each slice.
type ScrubProgress struct {
	Records int64
	Bytes   int64 // of the records
}

// Scrub checks everything in the file against its checksums, slice by slice, and
// returns the first Damage. pace is called after each slice and may wait. Any
// goroutine may call it; what is flushed or compacted meanwhile does not matter.
// What was never read since it was written is read from the disk.
func (s *Store) Scrub(ctx context.Context, pace func(ScrubProgress)) error {
	err := s.scrubOthers()
	for next, more := Revision(0), true; err == nil && more; {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("scrub: %w", err)
		}
		var done ScrubProgress
		next, more, done, err = s.scrubSlice(next)
		pace(done)
	}
	if s.closed.Load() {
		return ErrClosed
	}
	return err
}

func (s *Store) scrubOthers() error {
	return s.guardedRead(func(d *disk, tx *bolt.Tx) error { return d.checkOthers(tx) })
}

// guardedRead reads the live file, again if another one takes its place.
func (s *Store) guardedRead(f func(*disk, *bolt.Tx) error) error {
	return guarded(func() error {
		for {
			d := s.view.Load().disk
			err := d.read(func(tx *bolt.Tx) error { return f(d, tx) })
			if err != errStale || s.closed.Load() { //nolint:errorlint // never wrapped
				return err
			}
			time.Sleep(time.Millisecond)
		}
	})
}

// scrubSlice checks whole chunks from a revision on.
func (s *Store) scrubSlice(from Revision) (next Revision, more bool, done ScrubProgress, err error) {
	err = s.guardedRead(func(d *disk, tx *bolt.Tx) error {
		w := d.walkSums(tx, chunkOf(from))
		c := bucket(tx, BucketKey).Cursor()
		done = ScrubProgress{}
		for k, v := c.Seek(stamp{main: from}.appendKey(nil)); k != nil; k, v = c.Next() {
			at, err := parseStamp(k)
			if err != nil {
				return err
			}
			if done.Bytes >= scrubSliceBytes && chunkOf(at.main) != w.chunk {
				next, more = at.main, true
				return w.upTo(chunkOf(at.main))
			}
			if err := w.record(at, k, v); err != nil {
				return err
			}
			done.Records++
			done.Bytes += int64(len(v))
		}
		more = false
		return w.upTo(math.MaxUint64)
	})
	return next, more, done, err
}
