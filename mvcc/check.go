package mvcc

import (
	"encoding/binary"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// Report is what Check found.
type Report struct {
	Problems        []string // none: the file is sound
	Records         int
	Keys            int // that exist
	Revision        Revision
	CompactRevision Revision
	Applied         Applied
}

// problemsMax bounds a report on a file in which everything is wrong.
const problemsMax = 100

func (r *Report) problem(format string, args ...any) {
	if len(r.Problems) < problemsMax {
		r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	}
}

// Check examines a database or snapshot file that no server has open: its
// pages, buckets, the order and life of every key, leases, and the index that
// a server would build. Damage is reported, an error means that the file could
// not be examined.
func Check(path string) (Report, error) {
	var r Report
	if err := checkPages(path); errors.Is(err, ErrCorrupt) {
		r.problem("%v", err)
		return r, nil
	} else if err != nil {
		return r, fmt.Errorf("check %s: %w", path, err)
	}
	err := guarded(func() error {
		d, err := openDiskReadOnly(path)
		if err != nil {
			return err
		}
		defer d.db.Close()
		return d.read(func(tx *bolt.Tx) error {
			r.examine(tx)
			if len(r.Problems) == 0 {
				r.examineIndex(d)
			}
			return nil
		})
	})
	if errors.Is(err, ErrCorrupt) {
		r.problem("%v", err)
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("check %s: %w", path, err)
	}
	return r, nil
}

func (r *Report) examine(tx *bolt.Tx) {
	known := map[Bucket]bool{bucketSums: true}
	for _, b := range allBuckets() {
		known[b] = true
		if bucket(tx, b) == nil {
			r.problem("bucket %s is missing", b)
		}
	}
	_ = tx.ForEach(func(name []byte, _ *bolt.Bucket) error { // returns only what the visit returns
		if !known[Bucket(name)] {
			r.problem("bucket %q is unknown", name)
		}
		return nil
	})
	if len(r.Problems) > 0 {
		return
	}
	m, err := readMeta(tx)
	if err != nil {
		r.problem("%v", err)
		return
	}
	if m.scheduled < m.finished {
		r.problem("compaction to %d is finished, but only %d was scheduled", m.finished, m.scheduled)
	}
	r.Applied, r.CompactRevision = m.applied, max(m.finished, m.scheduled)
	r.examineRecords(tx)
}

// life is what a key's records have said so far.
type life struct {
	at      stamp
	create  Revision
	version int64
	lease   LeaseID
}

func (r *Report) examineRecords(tx *bolt.Tx) {
	lives := map[string]life{}
	_ = bucket(tx, BucketKey).ForEach(func(k, v []byte) error { // returns only what the visit returns
		r.Records++
		at, err := parseStamp(k)
		if err != nil {
			r.problem("%v", err)
			return nil
		}
		r.Revision = at.main
		head, err := decodeHead(v)
		if err != nil {
			r.problem("record %d.%d: %v", at.main, at.sub, err)
			return nil
		}
		if len(v) > 0 { // a restore that bumps the revision leaves an empty record
			r.examineLife(lives, at, head)
		}
		return nil
	})
	leases := bucket(tx, BucketLease)
	for key, l := range lives {
		if l.at.tomb {
			continue
		}
		r.Keys++
		if l.lease != 0 && leases.Get(binary.BigEndian.AppendUint64(nil, uint64(l.lease))) == nil {
			r.problem("key %q is attached to lease %x, which does not exist", key, uint64(l.lease))
		}
	}
}

// examineLife checks a record against the one before it of the same key.
func (r *Report) examineLife(lives map[string]life, at stamp, head recordHead) {
	before, had := lives[string(head.key)]
	where := fmt.Sprintf("record %d.%d of key %.80q", at.main, at.sub, head.key)
	switch {
	case at.tomb:
		if had && before.at.tomb {
			r.problem("%s deletes a key that does not exist", where)
		}
	case head.mod != at.main:
		r.problem("%s says that its revision is %d", where, head.mod)
	case head.version < 1 || head.create < 1 || head.create > head.mod || head.version == 1 && head.create != head.mod:
		r.problem("%s has version %d and create revision %d", where, head.version, head.create)
	case had && before.at.tomb && (head.version != 1 || head.create != head.mod):
		r.problem("%s makes the key, but has version %d and create revision %d", where, head.version, head.create)
	case had && !before.at.tomb && (head.version != before.version+1 || head.create != before.create):
		r.problem("%s has version %d of create revision %d after version %d of %d", where, head.version, head.create, before.version, before.create)
	}
	lives[string(head.key)] = life{at, head.create, head.version, head.lease}
}

// examineIndex builds the index as a server would and checks it.
func (r *Report) examineIndex(d *disk) {
	st, err := rebuild(d)
	if err != nil {
		r.problem("%v", err)
		return
	}
	n := 0
	last := ""
	st.tree.ascend(span{open: true}, true, func(it *item) bool {
		if n > 0 && it.key <= last {
			r.problem("index: key %q comes after %q", it.key, last)
		}
		n, last = n+1, it.key
		return true
	})
	if n != st.tree.live() {
		r.problem("index: counts %d keys and holds %d", st.tree.live(), n)
	}
	r.Revision = st.rev
}
