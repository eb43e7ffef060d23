package mvcc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kvorum/kvorum/internal/crash"
	bolt "go.etcd.io/bbolt"
)

const (
	// Copied per transaction. Each is synced, so that no more than this ever waits for the disk in front of the log.
	defragBatchBytes = 4 << 20
	defragCatchUp    = 2000 // records that may be left for the last step, in which nothing is flushed
)

// copying is a defragmentation under way.
type copying struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	others []otherWrite // flushed meanwhile; guarded by flushMu
	last   stamp        // the last record copied with its checksum
	done   chan struct{}
	err    error // set before done is closed
}

// Defragment writes the file anew without free space. Reads and writes go on:
// the copy is made beside the live file, follows what is flushed meanwhile,
// and takes its place in a moment in which only flushes wait. No compaction
// runs meanwhile. Who comes while another one is under way waits for that one.
func (s *Store) Defragment(ctx context.Context) error {
	for {
		c, begun := s.beginCopy(ctx)
		if begun {
			return s.copyAndSwap(c)
		}
		select {
		case <-c.done:
			if c.err == nil {
				return nil
			}
		case <-ctx.Done():
			return fmt.Errorf("defragment: %w", ctx.Err())
		}
	}
}

// beginCopy returns the defragmentation under way, or begins one.
func (s *Store) beginCopy(ctx context.Context) (c *copying, begun bool) {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	if s.flusher.copying != nil {
		return s.flusher.copying, false
	}
	c = &copying{done: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	s.flusher.copying = c
	return c, true
}

func (s *Store) copyAndSwap(c *copying) error {
	path, err := tempName(filepath.Dir(s.path), "db.tmp.*")
	if err == nil {
		err = s.defragment(c, path)
	}
	s.flushMu.Lock()
	s.flusher.copying = nil
	s.flushMu.Unlock()
	c.cancel(nil)
	s.wakeFlusher()
	if err != nil {
		c.err = fmt.Errorf("defragment: %w", errors.Join(err, removeIfThere(path)))
	}
	close(c.done)
	return c.err
}

func tempName(dir, pattern string) (string, error) {
	f, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return "", fmt.Errorf("create copy: %w", err)
	}
	return f.Name(), f.Close()
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (s *Store) defragment(c *copying, path string) error {
	fresh, err := openDisk(path, s.opts)
	if err != nil {
		return err
	}
	crash.Here("defragBeforeCopy")
	last, err := s.copyAll(c, fresh)
	c.last = last
	for n := defragCatchUp; err == nil && n >= defragCatchUp; {
		last, n, err = s.copyRecords(c.ctx, fresh, last)
	}
	if err != nil {
		return errors.Join(err, fresh.db.Close())
	}
	old, err := s.swap(c, fresh, path, last)
	if err != nil {
		return errors.Join(err, fresh.db.Close())
	}
	return old.db.Close() // waits for its readers
}

// copyAll copies every bucket as of one moment and returns the last record.
func (s *Store) copyAll(c *copying, to *disk) (last stamp, err error) {
	_, tx, err := s.steady()
	if err != nil {
		return stamp{}, err
	}
	defer tx.Rollback()
	s.flushMu.Lock()
	c.others = nil // whatever was flushed since is written twice, in order
	s.flushMu.Unlock()
	w := copier{to: to, ctx: c.ctx}
	err = tx.ForEach(func(name []byte, b *bolt.Bucket) error {
		return b.ForEach(func(k, v []byte) error { return w.put(Bucket(name), k, v) })
	})
	if err == nil {
		err = w.end()
	}
	return w.last, errors.Join(err, w.abort())
}

// copyRecords copies the records after last and returns the new last one and
// how many they were.
func (s *Store) copyRecords(ctx context.Context, to *disk, last stamp) (stamp, int, error) {
	s.mu.Lock()
	from := s.disk
	s.mu.Unlock()
	c := copier{to: to, ctx: ctx, last: last}
	n := 0
	err := from.read(func(tx *bolt.Tx) error {
		cur := bucket(tx, BucketKey).Cursor()
		next := stamp{main: last.main, sub: last.sub + 1}
		for k, v := cur.Seek(next.appendKey(nil)); k != nil; k, v = cur.Next() {
			n++
			if err := c.put(BucketKey, k, v); err != nil {
				return err
			}
		}
		return c.end()
	})
	return c.last, n, errors.Join(err, c.abort())
}

// copier writes pairs to a file in transactions of limited size.
type copier struct {
	to    *disk
	ctx   context.Context
	tx    *bolt.Tx
	name  Bucket       // of the bucket
	into  *bolt.Bucket // of tx
	bytes int
	last  stamp // of the records seen
}

func (c *copier) put(b Bucket, k, v []byte) (err error) {
	if c.tx == nil {
		if err := context.Cause(c.ctx); err != nil {
			return err
		}
		if c.tx, err = c.to.db.Begin(true); err != nil {
			return fmt.Errorf("begin copy: %w", err)
		}
	}
	if c.into == nil || c.name != b {
		if c.into, err = c.tx.CreateBucketIfNotExists([]byte(b)); err != nil {
			return fmt.Errorf("copy bucket %s: %w", b, err)
		}
		c.name, c.into.FillPercent = b, fillPercent
	}
	if err := c.into.Put(k, v); err != nil {
		return fmt.Errorf("copy to bucket %s: %w", b, err)
	}
	if b == BucketKey {
		if c.last, err = parseStamp(k); err != nil {
			return err
		}
	}
	if c.bytes += len(k) + len(v); c.bytes >= defragBatchBytes {
		return c.end()
	}
	return nil
}

// end commits what is begun.
func (c *copier) end() error {
	if c.tx == nil {
		return nil
	}
	tx := c.tx
	c.tx, c.into, c.bytes = nil, nil, 0
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit copy: %w", err)
	}
	return nil
}

// abort gives up what is begun and not ended.
func (c *copier) abort() error {
	if c.tx == nil {
		return nil
	}
	tx := c.tx
	c.tx, c.into = nil, nil
	return tx.Rollback()
}

// swap brings the copy up to date and puts it in the place of the live file.
func (s *Store) swap(c *copying, fresh *disk, path string, last stamp) (old *disk, err error) {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	if s.closed.Load() {
		return nil, ErrClosed
	}
	if err := context.Cause(c.ctx); err != nil { // Install may have put another file in the place of the one that was copied
		return nil, err
	}
	if _, _, err := s.copyRecords(c.ctx, fresh, last); err != nil {
		return nil, err
	}
	s.mu.Lock()
	live := s.disk
	s.mu.Unlock()
	if err := live.copySums(fresh, c.last.main); err != nil {
		return nil, err
	}
	if err := s.copyOthers(fresh, c.others); err != nil {
		return nil, err
	}
	fresh.summed = true
	crash.Here("defragBeforeRename")
	if err := renameDurably(path, s.path); err != nil {
		return nil, err
	}
	crash.Here("mvcc/after-defrag-rename")
	s.mu.Lock()
	old, s.disk = s.disk, fresh
	v := *s.view.Load()
	v.disk = fresh
	s.view.Store(&v)
	s.mu.Unlock()
	return old, nil
}

// copyOthers brings the other buckets of the copy up to date. flushMu is held.
func (s *Store) copyOthers(fresh *disk, others []otherWrite) error {
	s.mu.Lock()
	applied := s.flushedApplied
	s.mu.Unlock()
	err := fresh.db.Update(func(tx *bolt.Tx) error {
		if err := writeOthers(tx, others); err != nil {
			return err
		}
		return writeApplied(tx, applied)
	})
	if err != nil {
		return fmt.Errorf("bring copy up to date: %w", err)
	}
	return nil
}

// renameDurably puts a synced file in the place of another one and syncs the
// directory.
func renameDurably(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("rename %s to %s: %w", from, to, err)
	}
	return syncDir(filepath.Dir(to))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}
