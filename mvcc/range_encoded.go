package mvcc

import (
	"encoding/binary"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// A record is stored as it is answered: an encoded KeyValue. RangeEncoded puts
// the records of a list into the answer's buffers as they are, so that nothing
// is decoded, no message is built, and an answer of hundreds of megabytes is
// made of buffers of one, which the garbage collector hardly notices.

const (
	encodedHitsMax   = 1024    // read from the file in one transaction
	encodedBytesMax  = 1 << 20 // of one buffer, unless one record needs more
	tagRangeResponse = 2<<3 | 2
)

// EncodedRange is the answer to a list.
type EncodedRange struct {
	Revision Revision
	Count    int64
	More     bool
	// Kvs are the fields kvs of a RangeResponse, encoded and in order.
	Kvs [][]byte
}

// BufferSource gives empty buffers of at least the capacity. It is called from
// the goroutine that asked for the range.
type BufferSource interface {
	Buffer(size int) []byte
	Reset() // what was given is not used: the range begins anew
}

// RangeEncoded answers a range request whose answer is made of whole records in
// key order; ok is false for any other, which is for Range.
func (s *Store) RangeEncoded(r *pb.RangeRequest, buffers BufferSource) (a *EncodedRange, ok bool, err error) {
	_, single := spanOf(r.Key, r.RangeEnd)
	if single || r.KeysOnly || r.CountOnly || planOf(r).whole {
		return nil, false, nil
	}
	s.counts.ranges.Add(1)
	if v, ok := s.anchored(r); ok {
		a, err := v.rangeEncoded(r, buffers)
		if err == nil {
			a.Revision = s.Revision()
			return a, true, nil
		}
	}
	a, err = settled(s, Revision(r.Revision), func(v *view) (*EncodedRange, error) {
		a, err := v.rangeEncoded(r, buffers)
		if err == nil && a.More && (r.Revision <= 0 || Revision(r.Revision) == v.rev) {
			s.anchors.keep(v) // more pages of this revision will be wanted
		}
		return a, err
	})
	return a, true, err
}

func (v *view) rangeEncoded(r *pb.RangeRequest, buffers BufferSource) (*EncodedRange, error) {
	rev, err := v.readable(Revision(r.Revision))
	if err != nil {
		return nil, err
	}
	sp, _ := spanOf(r.Key, r.RangeEnd)
	p := planOf(r)
	found, n := v.hits(sp, rev, p.page())
	buffers.Reset()
	w := encodedWriter{buffers: buffers}
	ats := make([]stamp, 0, min(len(found), encodedHitsMax))
	for i := range found {
		at := i
		if p.reverse {
			at = len(found) - 1 - i
		}
		if ats = append(ats, found[at].at); len(ats) < encodedHitsMax && i < len(found)-1 {
			continue
		}
		w.last = i == len(found)-1
		if err := v.borrow(ats, w.write); err != nil {
			return nil, err
		}
		ats = ats[:0]
	}
	return &EncodedRange{Revision: v.rev, Count: int64(n), More: p.limit > 0 && n > p.limit, Kvs: w.full()}, nil
}

// borrow gives use the encoded records in the order of the stamps. They must
// not be kept.
func (v *view) borrow(ats []stamp, use func([][]byte)) error {
	out := make([][]byte, len(ats))
	var want []int
	for i, at := range ats {
		if !v.inTail(at) {
			want = append(want, i)
			continue
		}
		if out[i] = v.tail.find(at); out[i] == nil {
			return errStale
		}
	}
	if len(want) == 0 {
		use(out)
		return nil
	}
	return v.disk.borrow(ats, out, want, func() { use(out) })
}

// encodedWriter appends records to buffers.
type encodedWriter struct {
	buffers BufferSource
	last    bool // these are the last records
	at      []byte
	done    [][]byte
}

func (w *encodedWriter) write(records [][]byte) {
	left := 0
	for _, r := range records {
		left += encodedSize(r)
	}
	for _, r := range records {
		n := encodedSize(r)
		if cap(w.at)-len(w.at) < n {
			w.next(n, left)
		}
		w.at = binary.AppendUvarint(append(w.at, tagRangeResponse), uint64(len(r)))
		w.at = append(w.at, r...)
		left -= n
	}
}

func encodedSize(record []byte) int { return 1 + varintSize(uint64(len(record))) + len(record) }

// next begins a buffer for a record of n bytes, when left bytes are known to come.
func (w *encodedWriter) next(n, left int) {
	if len(w.at) > 0 {
		w.done = append(w.done, w.at)
	}
	size := encodedBytesMax
	if w.last {
		size = min(size, left)
	}
	w.at = w.buffers.Buffer(max(n, size))
}

func (w *encodedWriter) full() [][]byte {
	if len(w.at) > 0 {
		w.done = append(w.done, w.at)
	}
	return w.done
}
