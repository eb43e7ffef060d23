package mvcc

import (
	"context"
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"testing"
)

// watchModel is one client of the model test: it knows what it watches and
// what it has got, and compares that with the whole past.
type watchModel struct {
	t    *testing.T
	past *watchPast
	ws   *WatchStream
	r    *rand.Rand // of the reader

	mu       sync.Mutex
	specs    map[int64]WatchSpec // all watchers ever made; ids are not reused
	canceled map[int64]bool      // asked for; events may come until it is answered

	// Of the reader.
	next    map[int64]Revision // what each created watcher has to hear next
	ended   map[int64]bool
	caught  int // batches of the past
	live    int
	revMax  Revision // of the last progress
	failure string
}

// Events are lost, repeated, reordered or split when clients are slow, come
// and go while the store is written and compacted.
func TestWatchModel(t *testing.T) {
	r := watchRand(t)
	rounds := 4
	if os.Getenv("KVORUM_LONG") != "" {
		rounds = 100
	}
	for round := range rounds {
		runWatchModel(t, rand.New(rand.NewSource(r.Int63())), round)
	}
}

func runWatchModel(t *testing.T, r *rand.Rand, round int) {
	p := newWatchPast()
	var clients []*watchModel
	for i := range 6 {
		clients = append(clients, &watchModel{
			t: t, past: p, r: rand.New(rand.NewSource(r.Int63())),
			ws:    p.hub.newStream(WatchStreamOptions{OutboxBytesMax: 300 << (2 * i)}),
			specs: map[int64]WatchSpec{}, canceled: map[int64]bool{},
			next: map[int64]Revision{}, ended: map[int64]bool{},
		})
	}
	var writing atomic.Bool
	writing.Store(true)
	var askers, readers sync.WaitGroup
	for i, c := range clients {
		seed := r.Int63()
		askers.Go(func() { c.ask(rand.New(rand.NewSource(seed)), &writing, int64(i)*1_000_000) })
		readers.Go(c.read)
	}
	writeWatchModel(p, r)
	writing.Store(false)
	askers.Wait()
	for _, c := range clients {
		c.ws.Add(WatchSpec{ID: -2, Key: []byte("nobody"), Announce: true}) // so that there is progress to hear of
		c.ws.Reply("last")
	}
	readers.Wait()
	caught, live := 0, 0
	for _, c := range clients {
		if c.failure != "" {
			t.Fatalf("round %d: %s", round, c.failure)
		}
		caught, live = caught+c.caught, live+c.live
		c.ws.Close()
	}
	if caught == 0 || live == 0 {
		t.Fatalf("round %d: %d batches of the past, %d live: the test tests nothing", round, caught, live)
	}
	if p.hub.index.size != 0 || p.hub.stats().Watchers != 0 {
		t.Fatalf("round %d: left over: %+v", round, p.hub.stats())
	}
}

// writeWatchModel makes batches of revisions, and compactions.
func writeWatchModel(p *watchPast, r *rand.Rand) {
	for range 400 {
		var events []*Event
		for range 1 + r.Intn(4) {
			var changes []watchChange
			for _, key := range r.Perm(12)[:1+r.Intn(4)] {
				changes = append(changes, watchChange{key: watchModelKey(key), value: fmt.Sprint(r.Int()), delete: r.Intn(3) == 0})
			}
			events = append(events, p.change(r.Intn(2) == 0, changes...)...)
		}
		p.publish(events)
		if r.Intn(50) == 0 {
			p.compact(max(p.compacted, p.now-Revision(r.Intn(100))))
		}
		if r.Intn(100) == 0 {
			p.change(true, watchChange{key: watchModelKey(0), value: "installed"})
			p.hub.reset(p.now)
		}
		for range r.Intn(20) {
			runtime.Gosched()
		}
	}
}

func watchModelKey(i int) string { return fmt.Sprintf("k%02d", i) }

// ask makes and cancels watchers and asks for progress, as a client's sender does.
func (c *watchModel) ask(r *rand.Rand, writing *atomic.Bool, id int64) {
	for n := 0; writing.Load() || n < 20; n++ {
		if c.ws.WaitRoom(context.Background()) != nil {
			return
		}
		switch r.Intn(4) {
		case 0:
			if id++; id%1_000_000 > 30 { // no more than some, so that the test is quick
				c.cancel(id - 30)
			}
			c.add(r, id)
		case 1:
			if r.Intn(3) == 0 {
				c.cancel(id - int64(r.Intn(20)))
			}
		case 2:
			c.ws.Progress()
		case 3:
			c.ws.Tick()
		}
		for range r.Intn(50) {
			runtime.Gosched()
		}
	}
}

func (c *watchModel) cancel(id int64) {
	c.mu.Lock()
	c.canceled[id] = true
	c.mu.Unlock()
	if c.ws.Cancel(id) {
		c.ws.Reply(id)
	}
}

func (c *watchModel) add(r *rand.Rand, id int64) {
	spec := WatchSpec{ID: id, Announce: true, Key: []byte(watchModelKey(r.Intn(12)))}
	switch r.Intn(4) {
	case 0:
		spec.End = []byte("\x00")
	case 1:
		spec.End = []byte(watchModelKey(6 + r.Intn(8)))
	}
	now := c.past.hub.now()
	switch r.Intn(4) {
	case 0:
		spec.From = max(1, now-Revision(r.Intn(300)))
	case 1:
		spec.From = now + Revision(r.Intn(20))
	}
	spec.PrevKV, spec.NoPut, spec.NoDelete = r.Intn(2) == 0, r.Intn(5) == 0, r.Intn(5) == 0
	c.mu.Lock()
	c.specs[id] = spec
	c.mu.Unlock()
	c.ws.Add(spec)
}

// read takes batches, often slowly, until everything is written and heard.
func (c *watchModel) read() {
	defer c.ws.Close()
	last := false
	for {
		b, err := c.ws.Next(context.Background())
		if err != nil {
			c.fail("Next: %v", err)
			return
		}
		c.hear(b)
		if b.Kind == WatchReply && b.Reply == "last" {
			last = true
		}
		if last {
			done, notes := c.left()
			if done {
				c.hearFinal()
				return
			}
			if notes == 0 {
				c.ws.Reply("again") // a slice of history may hold nothing to hear
			}
		}
		if c.failure != "" {
			return
		}
		if c.r.Intn(8) == 0 {
			for range c.r.Intn(300) {
				runtime.Gosched()
			}
		}
	}
}

// left says whether nothing is left to hear, and how many notes are queued.
func (c *watchModel) left() (done bool, notes int) {
	c.ws.mu.Lock()
	defer c.ws.mu.Unlock()
	notes = len(c.ws.notes)
	return len(c.ws.behind) == 0 && c.ws.ready.first == nil && notes == 0, notes
}

func (c *watchModel) fail(format string, args ...any) {
	if c.failure == "" {
		c.failure = fmt.Sprintf(format, args...)
	}
}

func (c *watchModel) hear(b *WatchBatch) {
	switch b.Kind {
	case WatchCreated:
		c.mu.Lock()
		c.next[b.ID] = c.specs[b.ID].From
		c.mu.Unlock()
		if c.next[b.ID] == 0 {
			c.next[b.ID] = b.Revision + 1
		}
		if b.Revision < c.revMax {
			c.fail("watcher %d created at %d after progress to %d", b.ID, b.Revision, c.revMax)
		}
	case WatchReply:
		if id, ok := b.Reply.(int64); ok {
			c.ended[id] = true
		}
	case WatchCompacted:
		if c.next[b.ID] >= b.CompactRevision || c.ended[b.ID] {
			c.fail("watcher %d compacted to %d, next is %d", b.ID, b.CompactRevision, c.next[b.ID])
		}
		c.ended[b.ID] = true
	case WatchProgress:
		c.revMax = b.Revision
		for id := range c.next {
			c.complete(id, b.Revision)
		}
	case WatchIdle:
		for _, id := range b.Idle {
			c.complete(id, b.Revision)
		}
	case WatchEvents:
		c.hearEvents(b)
	}
}

// hearEvents compares a batch with the past.
func (c *watchModel) hearEvents(b *WatchBatch) {
	next, known := c.next[b.ID]
	if !known || c.ended[b.ID] {
		c.fail("events of watcher %d: created %v, ended %v", b.ID, known, c.ended[b.ID])
		return
	}
	lastRev := b.Events[len(b.Events)-1].rev
	want := c.wanted(b.ID, next, lastRev)
	same := func(a, b *Event) bool { return a.rev == b.rev && a.kind == b.kind && string(a.key) == string(b.key) }
	if !slices.EqualFunc(b.Events, want, same) {
		c.fail("watcher %d from %d: %.300s, want %.300s", b.ID, next, watchText(b), watchText(&WatchBatch{ID: b.ID, Events: want}))
		return
	}
	c.next[b.ID] = lastRev + 1
	if b.Revision < lastRev || b.Revision > c.past.hub.now() {
		c.fail("watcher %d: header %d of events up to %d", b.ID, b.Revision, lastRev)
	}
	if b.Revision > lastRev {
		c.caught++
	} else {
		c.live++
	}
	for i, e := range b.Events {
		full := appendEvent(nil, want[i].kind, want[i].record, want[i].prev)
		plain := appendEvent(nil, want[i].kind, want[i].record, nil)
		got := string(e.Encoded(b.PrevKV))
		compacted := c.past.CompactRevision() >= e.rev
		if b.PrevKV && got == string(full) || (!b.PrevKV || compacted) && got == string(plain) {
			continue
		}
		c.fail("watcher %d, prev %v: event %d encoded as %q, want %q", b.ID, b.PrevKV, i, got, full)
	}
}

// wanted is what the watcher should hear of the revisions.
func (c *watchModel) wanted(id int64, from, to Revision) []*Event {
	c.mu.Lock()
	spec := c.specs[id]
	c.mu.Unlock()
	c.past.mu.Lock()
	defer c.past.mu.Unlock()
	var events []*Event
	start := sort.Search(len(c.past.log), func(i int) bool { return c.past.log[i].rev >= from })
	for _, e := range c.past.log[start:] {
		if e.rev > to {
			break
		}
		if !watchCovers(string(spec.Key), string(spec.End), e.key) {
			continue
		}
		if e.kind == EventPut && spec.NoPut || e.kind == EventDelete && spec.NoDelete {
			continue
		}
		events = append(events, e)
	}
	return events
}

// complete checks that the client has heard all of a watcher up to rev.
func (c *watchModel) complete(id int64, rev Revision) {
	c.mu.Lock()
	canceled := c.canceled[id]
	c.mu.Unlock()
	if c.ended[id] || canceled {
		return
	}
	if missing := c.wanted(id, c.next[id], rev); len(missing) > 0 {
		c.fail("watcher %d is promised to have all up to %d: misses %d from %d to %d",
			id, rev, len(missing), missing[0].rev, missing[len(missing)-1].rev)
	}
}

func (c *watchModel) hearFinal() {
	for id := range c.next {
		c.complete(id, c.past.now)
	}
}
