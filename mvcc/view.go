package mvcc

import (
	"errors"
	"fmt"
)

// view is an immutable picture of the store at one revision. Any goroutine may
// read it for as long as it likes; only the records that a later compaction
// removes from the file can be missing from an old one (errStale).
type view struct {
	tree    tree
	tail    tail
	rev     Revision
	compact Revision
	applied Applied
	disk    *disk
}

// readable returns the revision that a request's revision means.
func (v *view) readable(rev Revision) (Revision, error) {
	switch {
	case rev <= 0:
		return v.rev, nil
	case rev > v.rev:
		return 0, ErrFutureRevision
	case rev < v.compact:
		return 0, ErrCompacted
	}
	return rev, nil
}

// inTail reports whether a record that exists must be in the tail.
func (v *view) inTail(at stamp) bool {
	first, ok := v.tail.begins()
	return ok && at.compare(first) >= 0
}

// record returns the encoded record.
func (v *view) record(at stamp) ([]byte, error) {
	if v.inTail(at) {
		if data := v.tail.find(at); data != nil {
			return data, nil
		}
		return nil, errStale
	}
	return v.disk.get(at)
}

// records returns the encoded records in the order of the stamps.
func (v *view) records(ats []stamp) ([][]byte, error) {
	out := make([][]byte, len(ats))
	var want []int
	for i, at := range ats {
		if !v.inTail(at) {
			want = append(want, i)
			continue
		}
		if out[i] = v.tail.find(at); out[i] == nil {
			return nil, errStale
		}
	}
	if len(want) == 0 {
		return out, nil
	}
	return out, v.disk.fetch(ats, out, want)
}

// settled runs a read on the newest view, and again on a newer one when the
// view was overtaken. explicit is the revision that the read names, 0 if none.
func settled[T any](s *Store, explicit Revision, read func(*view) (T, error)) (T, error) {
	var none T
	for {
		v := s.view.Load()
		answer, err := read(v)
		if !errors.Is(err, errStale) {
			return answer, err
		}
		now := s.view.Load()
		switch {
		case explicit > 0 && explicit < now.compact:
			return none, ErrCompacted
		case now != v:
			continue
		case s.closed.Load():
			return none, ErrClosed
		}
		return none, fmt.Errorf("%w: a record of revision %d is missing", ErrCorrupt, v.rev)
	}
}
