package mvcc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/kvorum/kvorum/internal/must"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// EventKind says what happened to a key.
type EventKind uint8

// The kinds of events; the numbers are those of mvccpb.Event.
const (
	EventPut EventKind = iota
	EventDelete
)

// Event is one change of one key. It never changes and is shared by all who
// watch the key, so its bytes, and all bytes it returns, must not be written.
type Event struct {
	kind EventKind
	key  []byte
	rev  Revision
	// record is the encoded mvccpb.KeyValue; of a delete, key and revision only.
	record []byte
	// prev is the encoded KeyValue before the change. When nil it is read
	// from history, once, for the first watcher that wants it.
	prev []byte

	mu    sync.Mutex // held while one variant is made, so that it is made once
	plain atomic.Pointer[[]byte]
	full  atomic.Pointer[[]byte]
}

// Kind says what happened.
func (e *Event) Kind() EventKind { return e.kind }

// Key is the key that changed.
func (e *Event) Key() []byte { return e.key }

// Rev is the revision of the change.
func (e *Event) Rev() Revision { return e.rev }

// Record is the encoded mvccpb.KeyValue after the change; of a delete it has
// the key and the revision only.
func (e *Event) Record() []byte { return e.record }

// Encoded returns the encoded mvccpb.Event, with or without prev_kv, without
// field tag and length. It is made once for all watchers. An event that came
// from WatchStream.Next for a watcher with PrevKV has its prev_kv, unless the
// key was created or the older revision is compacted.
func (e *Event) Encoded(prevKV bool) []byte {
	made := &e.plain
	if prevKV {
		made = &e.full
	}
	if b := made.Load(); b != nil {
		return *b
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if b := made.Load(); b != nil {
		return *b
	}
	var prev []byte
	if prevKV {
		prev = e.prev
	}
	return e.encode(made, prev)
}

// Size is the length of Encoded in bytes.
func (e *Event) Size(prevKV bool) int { return len(e.Encoded(prevKV)) }

// prepare makes the encoding, reading the previous value where the event
// came without it. The first caller reads, the others wait for it: ten
// thousand watchers of one key must not read the same value each.
func (e *Event) prepare(past history, prevKV bool) error {
	if prevKV && e.full.Load() != nil {
		return nil
	}
	if !prevKV || e.prev != nil || e.creates() {
		e.Encoded(prevKV)
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.full.Load() != nil {
		return nil
	}
	prev, err := past.valueAt(e.key, e.rev)
	if err != nil && !errors.Is(err, ErrCompacted) {
		return fmt.Errorf("read value before revision %d: %w", e.rev, err)
	}
	e.encode(&e.full, prev)
	return nil
}

// creates says whether the event made the key, so that nothing was before it.
func (e *Event) creates() bool {
	if e.kind == EventDelete {
		return false
	}
	var kv mvccpb.KeyValue
	must.NoError(kv.UnmarshalVTUnsafe(e.record), "decode record of event")
	return kv.Version == 1
}

// encode stores the encoding in made and returns it; the caller holds mu.
// Without a previous value both variants are equal and share their bytes.
func (e *Event) encode(made *atomic.Pointer[[]byte], prev []byte) []byte {
	if prev == nil {
		b := e.plain.Load()
		if b == nil {
			encoded := appendEvent(nil, e.kind, e.record, nil)
			b = &encoded
			e.plain.Store(b)
		}
		made.Store(b)
		return *b
	}
	b := appendEvent(nil, e.kind, e.record, prev)
	made.Store(&b)
	return b
}

// The tags of mvccpb.Event.
const (
	eventTagType = 1<<3 | 0
	eventTagKV   = 2<<3 | 2
	eventTagPrev = 3<<3 | 2
)

func appendEvent(b []byte, kind EventKind, record, prev []byte) []byte {
	if b == nil {
		b = make([]byte, 0, 2+2*(1+binary.MaxVarintLen32)+len(record)+len(prev))
	}
	if kind != EventPut {
		b = append(b, eventTagType, byte(kind))
	}
	b = append(b, eventTagKV)
	b = binary.AppendUvarint(b, uint64(len(record)))
	b = append(b, record...)
	if prev != nil {
		b = append(b, eventTagPrev)
		b = binary.AppendUvarint(b, uint64(len(prev)))
		b = append(b, prev...)
	}
	return b
}
