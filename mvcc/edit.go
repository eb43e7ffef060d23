package mvcc

import (
	"encoding/binary"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Editor changes a database file that no store has open, in one transaction.
// It is for tools, such as the one that makes a new member out of a snapshot.
type Editor struct {
	tx *bolt.Tx
}

// editLockMax is how long Edit waits for a member that has the file open.
const editLockMax = 10 * time.Second

// Edit runs edit on the file and commits what it did, durably, or nothing when
// it fails.
func Edit(path string, edit func(*Editor) error) error {
	d, err := openDisk(path, Options{LockTimeout: editLockMax}.withDefaults())
	if err != nil {
		return err
	}
	defer d.db.Close()
	err = d.db.Update(func(tx *bolt.Tx) error {
		if err := edit(&Editor{tx}); err != nil {
			return err
		}
		return voidSums(tx)
	})
	if err != nil {
		return fmt.Errorf("edit database %s: %w", path, err)
	}
	return nil
}

// Clear empties a bucket.
func (e *Editor) Clear(b Bucket) error {
	if err := e.tx.DeleteBucket([]byte(b)); err != nil {
		return fmt.Errorf("clear bucket %s: %w", b, err)
	}
	_, err := e.tx.CreateBucket([]byte(b))
	return err
}

// Set puts one pair into a bucket.
func (e *Editor) Set(b Bucket, key, value []byte) error {
	return e.tx.Bucket([]byte(b)).Put(key, value)
}

// Delete removes one pair of a bucket.
func (e *Editor) Delete(b Bucket, key []byte) error { return e.tx.Bucket([]byte(b)).Delete(key) }

// Get reads one value of a bucket, nil if there is none; it is valid during
// Edit.
func (e *Editor) Get(b Bucket, key []byte) []byte { return e.tx.Bucket([]byte(b)).Get(key) }

// SetApplied sets the log position that the file reflects.
func (e *Editor) SetApplied(a Applied) error {
	if err := e.Set(BucketMeta, []byte(metaIndex), binary.BigEndian.AppendUint64(nil, a.Index)); err != nil {
		return err
	}
	return e.Set(BucketMeta, []byte(metaTerm), binary.BigEndian.AppendUint64(nil, a.Term))
}

// Revision is the current one: that of the newest record, or of a compaction
// that has removed it.
func (e *Editor) Revision() (Revision, error) {
	m, err := readMeta(e.tx)
	if err != nil {
		return 0, err
	}
	newest := max(firstRevision, m.scheduled, m.finished)
	if k, _ := e.tx.Bucket([]byte(BucketKey)).Cursor().Last(); k != nil {
		at, err := parseStamp(k)
		if err != nil {
			return 0, err
		}
		newest = max(newest, at.main)
	}
	return newest, nil
}

// BumpRevision raises the current revision by so many and marks everything up
// to it as compacted, so that no watcher goes on from a revision of the old
// history. It returns the new revision.
func (e *Editor) BumpRevision(by uint64) (Revision, error) {
	newest, err := e.Revision()
	if err != nil {
		return 0, err
	}
	to := stamp{main: newest + Revision(by)}
	if err := e.Set(BucketKey, to.appendKey(nil), []byte{}); err != nil {
		return 0, err
	}
	return to.main, e.Set(BucketMeta, []byte(metaScheduled), to.appendKey(nil))
}
