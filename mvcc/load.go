package mvcc

import (
	"bytes"
	"errors"
	"slices"

	"github.com/kvorum/kvorum/internal/must"
	bolt "go.etcd.io/bbolt"
)

// Load visits a bucket other than BucketKey in key order, with everything that
// was set and is not yet flushed. Keys and values must not be kept or changed.
// Any goroutine may call it, but not inside visit.
func (s *Store) Load(b Bucket, visit func(k, v []byte) error) error {
	must.True(b != BucketKey, "the key bucket is read by Range")
	for {
		pending, tx, err := s.beginLoad(b)
		if errors.Is(err, errStale) {
			continue
		}
		if err != nil {
			return err
		}
		err = merge(bucket(tx, b).Cursor(), pending, visit)
		_ = tx.Rollback() // of a read transaction: cannot fail
		return err
	}
}

// beginLoad takes the file and the unflushed writes of the bucket at one
// moment. A write that is in both is the same in both.
func (s *Store) beginLoad(b Bucket) (pending []otherWrite, tx *bolt.Tx, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		return nil, nil, ErrClosed
	}
	if tx, err = s.disk.db.Begin(false); err != nil {
		return nil, nil, err
	}
	latest := map[string]otherWrite{}
	for _, o := range s.others {
		if o.bucket == b {
			latest[string(o.key)] = o
		}
	}
	for _, o := range latest {
		pending = append(pending, o)
	}
	slices.SortFunc(pending, func(a, b otherWrite) int { return bytes.Compare(a.key, b.key) })
	return pending, tx, nil
}

// merge visits the bucket with the pending writes laid over it.
func merge(c *bolt.Cursor, pending []otherWrite, visit func(k, v []byte) error) error {
	k, v := c.First()
	for k != nil || len(pending) > 0 {
		if len(pending) == 0 || k != nil && bytes.Compare(k, pending[0].key) < 0 {
			if err := visit(k, v); err != nil {
				return err
			}
			k, v = c.Next()
			continue
		}
		o := pending[0]
		pending = pending[1:]
		if bytes.Equal(k, o.key) {
			k, v = c.Next()
		}
		if o.value != nil {
			if err := visit(o.key, o.value); err != nil {
				return err
			}
		}
	}
	return nil
}
