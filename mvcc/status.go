package mvcc

import (
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// Status describes a database or snapshot file.
type Status struct {
	Hash      uint32 // CRC-32C over all buckets
	Revision  Revision
	TotalKeys int // that exist
	SizeBytes int64
	Version   string // the storage version, empty before etcd 3.6
}

// SnapshotStatus reads a file that no server has open, without changing it.
func SnapshotStatus(path string) (st Status, err error) {
	if err := checkPages(path); err != nil {
		return st, fmt.Errorf("status of %s: %w", path, err)
	}
	err = guarded(func() error {
		d, err := openDiskReadOnly(path)
		if err != nil {
			return err
		}
		defer d.db.Close()
		return d.read(func(tx *bolt.Tx) (err error) {
			st, err = statusOf(tx)
			return err
		})
	})
	if err != nil {
		return Status{}, fmt.Errorf("status of %s: %w", path, err)
	}
	return st, nil
}

func statusOf(tx *bolt.Tx) (st Status, err error) {
	st.SizeBytes = tx.Size()
	if st.Hash, err = hashFile(tx, func(Bucket, []byte) bool { return false }); err != nil {
		return st, err
	}
	if m := bucket(tx, BucketMeta); m != nil {
		st.Version = string(m.Get([]byte(metaVersion)))
	}
	keys := bucket(tx, BucketKey)
	if keys == nil {
		return st, nil
	}
	live := map[string]struct{}{}
	err = keys.ForEach(func(k, v []byte) error {
		at, err := parseStamp(k)
		if err != nil {
			return err
		}
		head, err := decodeHead(v)
		if err != nil {
			return fmt.Errorf("record %d.%d: %w", at.main, at.sub, err)
		}
		st.Revision = at.main
		if at.tomb {
			delete(live, stringOf(head.key))
		} else if _, ok := live[stringOf(head.key)]; !ok {
			live[string(head.key)] = struct{}{}
		}
		return nil
	})
	st.TotalKeys = len(live)
	return st, err
}
