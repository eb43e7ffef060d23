package mvcc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Bucket names a top-level bucket of the file.
type Bucket string

// The ten buckets. The store owns BucketKey and four keys of BucketMeta; the
// rest belongs to the caller of Set, Delete and Load.
const (
	BucketAlarm          Bucket = "alarm"
	BucketAuth           Bucket = "auth"
	BucketAuthRoles      Bucket = "authRoles"
	BucketAuthUsers      Bucket = "authUsers"
	BucketCluster        Bucket = "cluster"
	BucketKey            Bucket = "key"
	BucketLease          Bucket = "lease"
	BucketMembers        Bucket = "members"
	BucketMembersRemoved Bucket = "members_removed"
	BucketMeta           Bucket = "meta"
)

// allBuckets are the buckets in name order.
func allBuckets() []Bucket {
	return []Bucket{
		BucketAlarm, BucketAuth, BucketAuthRoles, BucketAuthUsers, BucketCluster,
		BucketKey, BucketLease, BucketMembers, BucketMembersRemoved, BucketMeta,
	}
}

// Keys of the meta bucket that the store writes.
const (
	metaIndex     = "consistent_index"
	metaTerm      = "term"
	metaScheduled = "scheduledCompactRev"
	metaFinished  = "finishedCompactRev"
	metaVersion   = "storageVersion"
)

// fillPercent suits keys that only grow: pages are left nearly full.
const fillPercent = 0.9

// disk is the open bbolt file.
type disk struct {
	db      *bolt.DB
	summed  bool          // its checksums can be relied on
	damaged func(*Damage) // told of what does not match; may be nil
}

// boltOptions are how the file is opened for writing: the free list is rebuilt
// at open instead of being written with every commit, and enough address space
// is reserved that growing the file never waits for readers.
func boltOptions(o Options) *bolt.Options {
	return &bolt.Options{
		NoFreelistSync:  true,
		FreelistType:    bolt.FreelistMapType,
		InitialMmapSize: int(o.MmapBytes),
		NoSync:          o.NoSync,
		NoGrowSync:      o.NoSync,
		Timeout:         o.LockTimeout,
		Mlock:           o.LockMemory,
	}
}

// openDisk opens or creates the file and the buckets that it lacks.
func openDisk(path string, o Options) (*disk, error) {
	if err := checkUnused(path); err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	var db *bolt.DB
	err := guarded(func() (err error) { // it panics on some damages
		db, err = bolt.Open(path, 0o600, boltOptions(o))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, lockError(err, o))
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, b := range allBuckets() {
			if _, err := tx.CreateBucketIfNotExists([]byte(b)); err != nil {
				return fmt.Errorf("create bucket %s: %w", b, err)
			}
		}
		_, err := tx.CreateBucketIfNotExists([]byte(bucketSums))
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare database %s: %w", path, err), db.Close())
	}
	return &disk{db: db, damaged: o.Damaged}, nil
}

// openDiskReadOnly opens an existing file for a reader that must not change it.
func openDiskReadOnly(path string) (*disk, error) {
	db, err := bolt.Open(path, 0o400, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	return &disk{db: db}, nil
}

// update runs f in a write transaction, and says how its commit went.
func (d *disk) update(f func(*bolt.Tx) error, stats *bolt.TxStats) error {
	var done *bolt.Tx
	err := d.db.Update(func(tx *bolt.Tx) error {
		done = tx
		return f(tx)
	})
	if done != nil {
		*stats = done.Stats()
	}
	return err
}

// read runs f in a read transaction. A file that was replaced meanwhile gives
// errStale.
func (d *disk) read(f func(*bolt.Tx) error) (err error) {
	tx, err := d.db.Begin(false)
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return errStale
	}
	if err != nil {
		return fmt.Errorf("begin read: %w", err)
	}
	// Also when f panics, as bbolt does on a damaged file: a transaction that is
	// left open would block the closing of the file for ever.
	defer func() {
		if e := tx.Rollback(); err == nil && e != nil {
			err = fmt.Errorf("end read: %w", e)
		}
	}()
	return f(tx)
}

// bucket returns the bucket, which openDisk has made.
func bucket(tx *bolt.Tx, b Bucket) *bolt.Bucket { return tx.Bucket([]byte(b)) }

// fetch fills out[i] with a copy of the record ats[i] for every i in want. All
// copies share one buffer. A record that is not there gives errStale.
func (d *disk) fetch(ats []stamp, out [][]byte, want []int) error {
	return d.borrow(ats, out, want, func() {
		total := 0
		for _, i := range want {
			total += len(out[i])
		}
		buf := make([]byte, 0, total)
		for _, i := range want {
			n := len(buf)
			buf = append(buf, out[i]...)
			out[i] = buf[n:len(buf):len(buf)]
		}
	})
}

// borrow fills out[i] with the record ats[i] itself for every i in want, calls
// use, and takes them back. It changes the order of want.
func (d *disk) borrow(ats []stamp, out [][]byte, want []int, use func()) error {
	order := func(i, j int) int { return ats[i].compare(ats[j]) }
	if !slices.IsSortedFunc(want, order) {
		slices.SortFunc(want, order)
	}
	return d.read(func(tx *bolt.Tx) error {
		c := bucket(tx, BucketKey).Cursor()
		checks := d.sums(tx)
		var key [tombstoneSize]byte
		var at []byte // where the cursor stands
		for n, i := range want {
			k := ats[i].appendKey(key[:0])
			var v []byte
			if n > 0 && at != nil {
				at, v = c.Next() // neighbours in time are neighbours in the file
			}
			if !bytes.Equal(at, k) {
				at, v = c.Seek(k)
			}
			if !bytes.Equal(at, k) {
				return errStale
			}
			if err := checks.check(ats[i], k, v); err != nil {
				return err
			}
			out[i] = v
		}
		use()
		return nil
	})
}

// get returns a copy of one record.
func (d *disk) get(at stamp) (data []byte, err error) {
	var key [tombstoneSize]byte
	err = d.read(func(tx *bolt.Tx) error {
		k := at.appendKey(key[:0])
		v := bucket(tx, BucketKey).Get(k)
		if v == nil {
			return errStale
		}
		checks := d.sums(tx)
		if err := checks.check(at, k, v); err != nil {
			return err
		}
		data = bytes.Clone(v)
		return nil
	})
	return data, err
}

// meta is what the store keeps in the meta bucket.
type meta struct {
	applied             Applied
	scheduled, finished Revision // neverCompacted when absent
}

func readMeta(tx *bolt.Tx) (m meta, err error) {
	b := bucket(tx, BucketMeta)
	number := func(k string) uint64 {
		if v := b.Get([]byte(k)); len(v) == 8 {
			return binary.BigEndian.Uint64(v)
		}
		return 0
	}
	m.applied = Applied{Index: number(metaIndex), Term: number(metaTerm)}
	if m.scheduled, err = readMark(b, metaScheduled); err != nil {
		return m, err
	}
	m.finished, err = readMark(b, metaFinished)
	return m, err
}

func readMark(b *bolt.Bucket, k string) (Revision, error) {
	v := b.Get([]byte(k))
	if v == nil {
		return neverCompacted, nil
	}
	at, err := parseStamp(v)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", k, err)
	}
	return at.main, nil
}

func writeApplied(tx *bolt.Tx, a Applied) error {
	b := bucket(tx, BucketMeta)
	if err := b.Put([]byte(metaIndex), binary.BigEndian.AppendUint64(nil, a.Index)); err != nil {
		return fmt.Errorf("write applied index: %w", err)
	}
	if err := b.Put([]byte(metaTerm), binary.BigEndian.AppendUint64(nil, a.Term)); err != nil {
		return fmt.Errorf("write applied term: %w", err)
	}
	return markSums(tx, a)
}

// markOf is how a compact revision is written.
func markOf(rev Revision) []byte { return stamp{main: rev}.appendKey(nil) }

// size returns the allocated bytes, those in use and the open read transactions.
// Pages that the next commit may take count as free.
func (d *disk) size() (allocated, inUse int64, reads int) {
	pageSize := 0
	err := d.read(func(tx *bolt.Tx) error {
		allocated, pageSize = tx.Size(), tx.DB().Info().PageSize
		return nil
	})
	if err != nil { // closed
		return 0, 0, 0
	}
	st := d.db.Stats()
	return allocated, max(allocated-int64((st.FreePageN+st.PendingPageN)*pageSize), 0), st.OpenTxN
}
