package mvcc

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/kvorum/kvorum/proto/mvccpb"
)

// watchPast is a history in memory, with a hub that hears of every change.
type watchPast struct {
	hub *hub

	mu        sync.Mutex
	now       Revision
	compacted Revision
	log       []*Event          // all events, in order
	latest    map[string]*Event // by key
	reads     int
	values    int
	onRead    func() // called in history, under no lock
	fail      error  // what reads answer, when set
}

func newWatchPast() *watchPast {
	p := &watchPast{now: 1, latest: make(map[string]*Event)}
	p.hub = newHub(p, 1)
	return p
}

type watchChange struct {
	key    string
	value  string
	delete bool
}

// change makes one revision of changes that is not published yet. Without
// keepPrev the events come without their previous value.
func (p *watchPast) change(keepPrev bool, changes ...watchChange) []*Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now++
	var events []*Event
	for _, c := range changes {
		e := watchEvent(p.now, c, p.latest[c.key])
		if e == nil {
			continue
		}
		p.log = append(p.log, e)
		p.latest[c.key] = e
		live := &Event{kind: e.kind, key: e.key, rev: e.rev, record: e.record}
		if keepPrev {
			live.prev = e.prev
		}
		events = append(events, live)
	}
	return events
}

// watchEvent makes an event with its previous value; nil for the deletion of nothing.
func watchEvent(rev Revision, c watchChange, last *Event) *Event {
	e := &Event{key: []byte(c.key), rev: rev}
	kv := &mvccpb.KeyValue{Key: e.key, ModRevision: int64(rev)}
	exists := last != nil && last.kind == EventPut
	if exists {
		e.prev = last.record
	}
	switch {
	case c.delete && !exists:
		return nil
	case c.delete:
		e.kind = EventDelete
	default:
		kv.CreateRevision, kv.Version, kv.Value = int64(rev), 1, []byte(c.value)
		if exists {
			var before mvccpb.KeyValue
			if err := before.UnmarshalVT(last.record); err != nil {
				panic(err)
			}
			kv.CreateRevision, kv.Version = before.CreateRevision, before.Version+1
		}
	}
	e.record, _ = kv.MarshalVT()
	return e
}

// put changes and publishes one revision of puts.
func (p *watchPast) put(keys ...string) Revision {
	var changes []watchChange
	for _, key := range keys {
		changes = append(changes, watchChange{key: key, value: "value"})
	}
	p.publish(p.change(true, changes...))
	return p.now
}

func (p *watchPast) publish(events []*Event) { p.hub.publish(p.now, events) }

func (p *watchPast) compact(rev Revision) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.compacted = rev
}

func (p *watchPast) CompactRevision() Revision {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.compacted
}

func (p *watchPast) history(from, to Revision, key, end []byte, recordsMax, bytesMax int) ([]*Event, Revision, error) {
	if p.onRead != nil {
		p.onRead()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reads++
	if p.fail != nil {
		return nil, 0, p.fail
	}
	if from < p.compacted {
		return nil, 0, ErrCompacted
	}
	var events []*Event
	records, size := 0, 0
	start := sort.Search(len(p.log), func(i int) bool { return p.log[i].rev >= from })
	for i, e := range p.log[start:] {
		if e.rev > to {
			break
		}
		if (records >= recordsMax || size >= bytesMax) && e.rev != p.log[start+i-1].rev {
			return events, e.rev, nil
		}
		records++
		size += len(e.record)
		if watchCovers(string(key), string(end), e.key) {
			events = append(events, &Event{kind: e.kind, key: e.key, rev: e.rev, record: e.record})
		}
	}
	return events, to + 1, nil
}

func (p *watchPast) valueAt(key []byte, before Revision) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.values++
	if p.fail != nil {
		return nil, p.fail
	}
	if before-1 < p.compacted {
		return nil, ErrCompacted
	}
	for i := len(p.log) - 1; i >= 0; i-- {
		if e := p.log[i]; e.rev < before && bytes.Equal(e.key, key) {
			if e.kind == EventDelete {
				return nil, nil
			}
			return e.record, nil
		}
	}
	return nil, nil
}

// watchCovers is the meaning of a range, written plainly.
func watchCovers(key, end string, k []byte) bool {
	switch end {
	case "":
		return string(k) == key
	case "\x00":
		return string(k) >= key
	}
	return string(k) >= key && string(k) < end
}

// watchRand returns a source that prints how to repeat it.
func watchRand(t testing.TB) *rand.Rand {
	seed := time.Now().UnixNano()
	if s := os.Getenv("KVORUM_SEED"); s != "" {
		seed, _ = strconv.ParseInt(s, 10, 64)
	}
	t.Logf("replay with KVORUM_SEED=%d go test -run '^%s$' ./mvcc", seed, t.Name())
	return rand.New(rand.NewSource(seed))
}

// watchText shows a batch in one line.
func watchText(b *WatchBatch) string {
	switch b.Kind {
	case WatchCreated:
		return fmt.Sprintf("created %d @%d", b.ID, b.Revision)
	case WatchCompacted:
		return fmt.Sprintf("compacted %d to %d @%d", b.ID, b.CompactRevision, b.Revision)
	case WatchProgress:
		return fmt.Sprintf("progress %d @%d", b.ID, b.Revision)
	case WatchIdle:
		return fmt.Sprintf("idle %v @%d", b.Idle, b.Revision)
	case WatchReply:
		return fmt.Sprintf("reply %v", b.Reply)
	}
	text := fmt.Sprintf("events %d @%d:", b.ID, b.Revision)
	for _, e := range b.Events {
		text += fmt.Sprintf(" %s%s@%d", map[EventKind]string{EventPut: "+", EventDelete: "-"}[e.kind], e.key, e.rev)
	}
	return text
}
