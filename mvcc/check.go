package mvcc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// Problem is one thing that is wrong with a file.
type Problem struct {
	Offset int64  // in the file; -1 if it has no one place
	Key    []byte // that it concerns; nil if none or unknown
	Text   string
}

// String is the problem with its key.
func (p Problem) String() string {
	if p.Key == nil {
		return p.Text
	}
	return fmt.Sprintf("key %.80q: %s", p.Key, p.Text)
}

// Report is what Check found.
type Report struct {
	Problems        []Problem // none: the file is sound
	Leases          int
	SizeBytes       int64
	Records         int
	Keys            int // that exist
	Revision        Revision
	CompactRevision Revision
	Applied         Applied
}

// problemsMax bounds a report on a file in which everything is wrong.
const problemsMax = 100

func (r *Report) problem(format string, args ...any) { r.problemOf(nil, format, args...) }

// problemOf is a problem of one key, nil for none.
func (r *Report) problemOf(key []byte, format string, args ...any) {
	if len(r.Problems) < problemsMax {
		r.Problems = append(r.Problems, Problem{Offset: -1, Key: bytes.Clone(key), Text: fmt.Sprintf(format, args...)})
	}
}

// damage is a problem that an error tells.
func (r *Report) damage(err error) {
	at := int64(-1)
	if p := (*pageError)(nil); errors.As(err, &p) {
		at = p.offset
	}
	if d := (*Damage)(nil); errors.As(err, &d) {
		at = d.Offset
	}
	r.Problems = append(r.Problems, Problem{Offset: at, Text: err.Error()})
}

// recordsPerPass bounds the memory of Check: in each pass over the records it
// follows the lives of only so many keys.
const recordsPerPass = 1 << 20

// Check examines a database or snapshot file that no server has open: its
// pages, buckets, the order and life of every key, leases, and the index that
// a server would build. It changes nothing, and its memory does not grow with
// the file. Damage is reported, an error means that the file could not be
// examined. A bit that flipped inside a value is seen by the file's checksums; in
// one that Kvorum has not opened for writing since another tool wrote to it there
// are none, and only the hashes of other members tell it.
func Check(path string) (Report, error) { return check(path, recordsPerPass) }

func check(path string, perPass int) (Report, error) {
	var r Report
	if err := checkPages(path); errors.Is(err, ErrCorrupt) {
		r.damage(err)
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
			r.SizeBytes = tx.Size()
			r.examine(d, tx, perPass)
			return nil
		})
	})
	if errors.Is(err, ErrCorrupt) {
		r.damage(err)
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("check %s: %w", path, err)
	}
	return r, nil
}

func (r *Report) examine(d *disk, tx *bolt.Tx, perPass int) {
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
	d.summed = sumsCurrent(tx, m.applied)
	r.examineSums(d, tx)
	_ = bucket(tx, BucketLease).ForEach(func(k, _ []byte) error { r.Leases++; return nil }) // returns only what the visit returns
	passes := uint32(bucket(tx, BucketKey).Stats().KeyN/perPass + 1)
	for n := range passes {
		p := pass{Report: r, leases: bucket(tx, BucketLease), number: n, of: passes, finished: m.finished, begun: r.CompactRevision,
			lives: map[string]life{}, index: rebuilder{items: map[string]*item{}, garbage: new(garbage), checks: new(sumsWalk)}}
		_ = bucket(tx, BucketKey).ForEach(func(k, v []byte) error { p.record(k, v); return nil }) // returns only what the visit returns
		p.end()
	}
	r.Revision = max(firstRevision, r.Revision, m.scheduled, m.finished)
}

// examineSums compares what the file holds with its checksums, if it has any that
// speak of all of it. It ends at the first damage.
func (r *Report) examineSums(d *disk, tx *bolt.Tx) {
	w := d.walkSums(tx, 0)
	err := bucket(tx, BucketKey).ForEach(func(k, v []byte) error {
		at, err := parseStamp(k)
		if err != nil {
			return nil //nolint:nilerr // the pass over the records reports it
		}
		return w.record(at, k, v)
	})
	if err == nil {
		err = w.upTo(math.MaxUint64)
	}
	if err == nil {
		err = d.checkOthers(tx)
	}
	if err != nil {
		r.damage(err)
	}
}

// pass is one pass over all records, for the keys of one share.
type pass struct {
	*Report
	leases     *bolt.Bucket
	number, of uint32
	// What is at or below begun may have been removed by a compaction; what is
	// at or below finished has been, as far as it had to go.
	begun, finished Revision
	before          stamp // of the record before
	lives           map[string]life
	index           rebuilder
	unread          bool // a record could not be read, so the index is not whole
}

// life is what a key's records have said so far.
type life struct {
	at        stamp
	create    Revision
	version   int64
	lease     LeaseID
	compacted int // records at or below the finished compaction
}

// record takes the next record. What does not depend on the key is checked in
// the first pass.
func (p *pass) record(k, v []byte) {
	first := p.number == 0
	if first {
		p.Records++
	}
	at, err := parseStamp(k)
	if err != nil {
		p.unread = true
		if first {
			p.damage(err)
		}
		return
	}
	head, err := decodeHead(v)
	if err != nil {
		p.unread = true
		if first {
			p.problem("record %d.%d: %v", at.main, at.sub, err)
		}
		return
	}
	if first {
		p.order(at)
	}
	if len(v) == 0 || crc32.ChecksumIEEE(head.key)%p.of != p.number { // a restore that bumps the revision leaves an empty record
		return
	}
	p.examineLife(at, head)
	if err := p.index.add(k, v); err != nil {
		p.damage(err)
	}
}

// order checks that the changes of a revision are numbered without a gap, as
// far as no compaction may have removed some.
func (p *pass) order(at stamp) {
	if at.main < 1 {
		p.problem("record %d.%d: revisions begin at 1", at.main, at.sub)
	}
	if at.main > p.begun && at.main != p.before.main && at.sub != 0 {
		p.problem("record %d.%d: the changes of revision %d before it are missing", at.main, at.sub, at.main)
	}
	if at.main > p.begun && at.main == p.before.main && at.sub != p.before.sub+1 {
		p.problem("record %d.%d: comes after record %d.%d", at.main, at.sub, p.before.main, p.before.sub)
	}
	p.before, p.Revision = at, at.main
}

// examineLife checks a record against the one before it of the same key.
func (p *pass) examineLife(at stamp, head recordHead) {
	before, had := p.lives[string(head.key)]
	where := fmt.Sprintf("record %d.%d", at.main, at.sub)
	bad := func(format string, args ...any) { p.problemOf(head.key, where+" "+format, args...) }
	switch {
	case len(head.key) == 0:
		bad("has no key")
	case at.tomb:
		if had && before.at.tomb {
			bad("deletes a key that does not exist")
		}
	case head.mod != at.main:
		bad("says that its revision is %d", head.mod)
	case head.version < 1 || head.create < 1 || head.create > head.mod || head.version == 1 && head.create != head.mod:
		bad("has version %d and create revision %d", head.version, head.create)
	case had && before.at.tomb && (head.version != 1 || head.create != head.mod):
		bad("makes the key, but has version %d and create revision %d", head.version, head.create)
	case had && !before.at.tomb && (head.version != before.version+1 || head.create != before.create):
		bad("has version %d of create revision %d after version %d of %d", head.version, head.create, before.version, before.create)
	case !had && at.main > p.begun && head.create > p.begun && head.version != 1:
		bad("has version %d, and the ones since its creation at %d are missing", head.version, head.create)
	}
	compacted := before.compacted
	if at.main <= p.finished {
		compacted++
	}
	p.lives[string(head.key)] = life{at, head.create, head.version, head.lease, compacted}
}

// end judges the keys as they are now, and the index that a server would build
// of them.
func (p *pass) end() {
	for _, key := range slices.Sorted(maps.Keys(p.lives)) {
		l := p.lives[key]
		if l.compacted > 1 {
			p.problemOf([]byte(key), "%d records are left of before the compaction to revision %d, which leaves one", l.compacted, p.finished)
		}
		if l.at.tomb {
			continue
		}
		p.Keys++
		if l.lease != 0 && p.leases.Get(binary.BigEndian.AppendUint64(nil, uint64(l.lease))) == nil {
			p.problemOf([]byte(key), "is attached to lease %x, which does not exist", uint64(l.lease))
		}
	}
	if !p.unread {
		p.examineIndex()
	}
}

func (p *pass) examineIndex() {
	items := slices.Collect(maps.Values(p.index.items))
	sortItems(items)
	t := buildTree(items)
	n, last := 0, ""
	t.ascend(span{open: true}, true, func(it *item) bool {
		if n > 0 && it.key <= last {
			p.problemOf([]byte(it.key), "comes after %q in the index", last)
		}
		n, last = n+1, it.key
		return true
	})
	if n != t.live() {
		p.problem("index: counts %d keys and holds %d", t.live(), n)
	}
}
