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
	defragBatchBytes = 8 << 20 // copied per transaction
	defragCatchUp    = 2000    // records that may be left for the last step, in which nothing is flushed
)

// Defragment writes the file anew without free space. Reads and writes go on:
// the copy is made beside the live file, follows what is flushed meanwhile,
// and takes its place in a moment in which only flushes wait. No compaction
// runs meanwhile.
func (s *Store) Defragment(ctx context.Context) error {
	if !s.beginCopy() {
		return errors.New("defragment: already running")
	}
	path, err := tempName(filepath.Dir(s.path), "db.tmp.*")
	if err == nil {
		err = s.defragment(ctx, path)
	}
	s.flushMu.Lock()
	s.flusher.copying, s.flusher.copied = false, nil
	s.flushMu.Unlock()
	s.wakeFlusher()
	if err != nil {
		return fmt.Errorf("defragment: %w", errors.Join(err, removeIfThere(path)))
	}
	return nil
}

func (s *Store) beginCopy() bool {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	if s.flusher.copying {
		return false
	}
	s.flusher.copying = true
	return true
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

func (s *Store) defragment(ctx context.Context, path string) error {
	o := s.opts
	o.NoSync = true // synced as a whole at the end
	fresh, err := openDisk(path, o)
	if err != nil {
		return err
	}
	last, err := s.copyAll(ctx, fresh)
	for n := defragCatchUp; err == nil && n >= defragCatchUp; {
		last, n, err = s.copyRecords(ctx, fresh, last)
	}
	if err == nil {
		err = fresh.db.Sync()
	}
	if err != nil {
		return errors.Join(err, fresh.db.Close())
	}
	old, err := s.swap(ctx, fresh, path, last)
	if err != nil {
		return errors.Join(err, fresh.db.Close())
	}
	return old.db.Close() // waits for its readers
}

// copyAll copies every bucket as of one moment and returns the last record.
func (s *Store) copyAll(ctx context.Context, to *disk) (last stamp, err error) {
	_, tx, err := s.steady()
	if err != nil {
		return stamp{}, err
	}
	defer tx.Rollback()
	s.flushMu.Lock()
	s.flusher.copied = nil // whatever was flushed since is written twice, in order
	s.flushMu.Unlock()
	c := copier{to: to, ctx: ctx}
	err = tx.ForEach(func(name []byte, b *bolt.Bucket) error {
		return b.ForEach(func(k, v []byte) error { return c.put(Bucket(name), k, v) })
	})
	if err == nil {
		err = c.end()
	}
	return c.last, errors.Join(err, c.abort())
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
	bytes int
	last  stamp // of the records seen
}

func (c *copier) put(b Bucket, k, v []byte) (err error) {
	if c.tx == nil {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if c.tx, err = c.to.db.Begin(true); err != nil {
			return fmt.Errorf("begin copy: %w", err)
		}
	}
	to, err := c.tx.CreateBucketIfNotExists([]byte(b))
	if err != nil {
		return fmt.Errorf("copy bucket %s: %w", b, err)
	}
	to.FillPercent = fillPercent
	if err := to.Put(k, v); err != nil {
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
	c.tx, c.bytes = nil, 0
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
	c.tx = nil
	return tx.Rollback()
}

// swap brings the copy up to date and puts it in the place of the live file.
func (s *Store) swap(ctx context.Context, fresh *disk, path string, last stamp) (old *disk, err error) {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	if s.closed.Load() {
		return nil, ErrClosed
	}
	if _, _, err := s.copyRecords(ctx, fresh, last); err != nil {
		return nil, err
	}
	if err := s.copyOthers(fresh); err != nil {
		return nil, err
	}
	crash.Here("mvcc/before-defrag-rename")
	if err := renameDurably(path, s.path); err != nil {
		return nil, err
	}
	fresh.db.NoSync, fresh.db.NoGrowSync = s.opts.NoSync, s.opts.NoSync
	s.mu.Lock()
	old, s.disk = s.disk, fresh
	v := *s.view.Load()
	v.disk = fresh
	s.view.Store(&v)
	s.mu.Unlock()
	return old, nil
}

// copyOthers brings the other buckets of the copy up to date. flushMu is held.
func (s *Store) copyOthers(fresh *disk) error {
	s.mu.Lock()
	applied := s.flushedApplied
	s.mu.Unlock()
	err := fresh.db.Update(func(tx *bolt.Tx) error {
		if err := writeOthers(tx, s.flusher.copied); err != nil {
			return err
		}
		return writeApplied(tx, applied)
	})
	if err != nil {
		return fmt.Errorf("bring copy up to date: %w", err)
	}
	if err := fresh.db.Sync(); err != nil {
		return fmt.Errorf("sync copy: %w", err)
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
