package mvcc

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
)

// Revision counts the changes of the store. An empty store is at 1, the first
// change makes 2.
type Revision int64

// LeaseID names a lease. The store knows which keys are attached to it and
// nothing else; 0 is none.
type LeaseID int64

// Applied is a position in the log: the last entry that a state reflects.
type Applied struct{ Index, Term uint64 }

// firstRevision is the revision of an empty store.
const firstRevision Revision = 1

// neverCompacted is the compact revision of a store that was never compacted.
const neverCompacted Revision = -1

// stamp names one record: the revision that made it, its place among the
// changes of that revision, and whether it is a deletion.
type stamp struct {
	main Revision
	sub  int32
	tomb bool
}

// compare orders stamps as the file does.
func (s stamp) compare(o stamp) int {
	if c := cmp.Compare(s.main, o.main); c != 0 {
		return c
	}
	return cmp.Compare(s.sub, o.sub)
}

const (
	stampSize     = 17 // main, '_', sub
	tombstoneSize = 18 // and 't'
)

// appendKey appends the bbolt key of the record.
func (s stamp) appendKey(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.main))
	dst = append(dst, '_')
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.sub))
	if s.tomb {
		dst = append(dst, 't')
	}
	return dst
}

// parseStamp reads a bbolt key of the key bucket.
func parseStamp(k []byte) (stamp, error) {
	if len(k) != stampSize && len(k) != tombstoneSize {
		return stamp{}, fmt.Errorf("%w: invalid revision length %d", ErrCorrupt, len(k))
	}
	if k[8] != '_' {
		return stamp{}, fmt.Errorf("%w: invalid separator in bucket key %x", ErrCorrupt, k)
	}
	main, sub := binary.BigEndian.Uint64(k), binary.BigEndian.Uint64(k[9:])
	if main > math.MaxInt64 || sub > math.MaxInt32 {
		return stamp{}, fmt.Errorf("%w: revision out of range in bucket key %x", ErrCorrupt, k)
	}
	tomb := len(k) == tombstoneSize
	if tomb && k[17] != 't' {
		return stamp{}, fmt.Errorf("%w: invalid mark in bucket key %x", ErrCorrupt, k)
	}
	return stamp{main: Revision(main), sub: int32(sub), tomb: tomb}, nil
}
