package mvcc

// tail holds the newest records in revision order. Positions count records
// since the store was opened; [first, last) are held.
//
// A tail is a value: a copy stays valid, because records are immutable, a
// chunk is only filled behind what copies can see, and dropping from the front
// only moves first.
type tail struct {
	chunks      []*tailChunk
	base        int64 // position of the first slot of chunks[0]
	first, last int64
}

// tailChunkSize is small, because one remaining record keeps all of its chunk
// in memory.
const tailChunkSize = 64

type tailChunk [tailChunkSize]tailRecord

type tailRecord struct {
	at   stamp
	data []byte
}

func (t *tail) get(pos int64) *tailRecord {
	i := pos - t.base
	return &t.chunks[i/tailChunkSize][i%tailChunkSize]
}

func (t *tail) len() int64 { return t.last - t.first }

// append adds a record newer than all others.
func (t *tail) append(at stamp, data []byte) {
	if t.last-t.base == int64(len(t.chunks))*tailChunkSize {
		t.chunks = append(t.chunks, new(tailChunk))
	}
	t.last++
	*t.get(t.last - 1) = tailRecord{at: at, data: data}
}

// drop forgets the oldest record and returns its size.
func (t *tail) drop() int {
	n := len(t.get(t.first).data)
	t.first++
	for t.first-t.base >= tailChunkSize {
		t.chunks = t.chunks[1:]
		t.base += tailChunkSize
	}
	return n
}

// begins returns the stamp of the oldest record held; ok is false when the tail is empty.
func (t *tail) begins() (at stamp, ok bool) {
	if t.first == t.last {
		return stamp{}, false
	}
	return t.get(t.first).at, true
}

// find returns the record of the stamp, or nil if it is not in the tail.
func (t *tail) find(at stamp) []byte {
	pos := t.seek(at)
	if pos == t.last {
		return nil
	}
	if r := t.get(pos); r.at == at {
		return r.data
	}
	return nil
}

// seek returns the position of the first record that is not before the stamp.
// Revisions are nearly evenly spread, so a few guesses by interpolation bring
// it close and binary search does the rest.
func (t *tail) seek(at stamp) int64 {
	lo, hi := t.first, t.last // answer is in [lo, hi]
	for range 3 {
		if hi-lo < 8 {
			break
		}
		a, b := t.get(lo).at.main, t.get(hi-1).at.main
		if at.main <= a || at.main >= b {
			break
		}
		guess := lo + int64(float64(at.main-a)/float64(b-a)*float64(hi-1-lo))
		const slack = 4
		if g := guess - slack; g > lo && g < hi && t.get(g).at.compare(at) < 0 {
			lo = g + 1
		}
		if g := guess + slack; g >= lo && g < hi && t.get(g).at.compare(at) >= 0 {
			hi = g
		}
	}
	for lo < hi {
		m := int64(uint64(lo+hi) >> 1)
		if t.get(m).at.compare(at) < 0 {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo
}
