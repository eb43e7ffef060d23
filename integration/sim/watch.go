package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// change is what one revision did to one key.
type change struct {
	key     string
	deleted bool
}

// chronicle is what every revision has changed, found by looking at the keys
// before and after it, without the help of the store's own events.
type chronicle struct {
	keys      map[string]int64 // live keys and the revision that wrote them
	revisions [][]change       // [i] is revision i+2
}

func newChronicle() *chronicle { return &chronicle{keys: map[string]int64{}} }

// write takes the state after an entry. An entry makes one revision or none.
func (c *chronicle) write(s *mvcc.Store) error {
	before, now := int64(len(c.revisions))+1, int64(s.Revision())
	switch {
	case now == before:
		return nil
	case now != before+1:
		return fmt.Errorf("one entry has made revision %d from %d", now, before)
	}
	r, err := s.Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, KeysOnly: true})
	if err != nil {
		return err
	}
	var changes []change
	here := make(map[string]int64, len(r.Kvs))
	for _, kv := range r.Kvs {
		here[string(kv.Key)] = kv.ModRevision
		if kv.ModRevision == now {
			changes = append(changes, change{string(kv.Key), false})
		}
	}
	for key := range c.keys {
		if _, lives := here[key]; !lives {
			changes = append(changes, change{key, true})
		}
	}
	slices.SortFunc(changes, func(a, b change) int { return bytes.Compare([]byte(a.key), []byte(b.key)) })
	c.keys, c.revisions = here, append(c.revisions, changes)
	return nil
}

// at is what a revision has changed.
func (c *chronicle) at(rev int64) []change { return c.revisions[rev-2] }

// last is the newest revision.
func (c *chronicle) last() int64 { return int64(len(c.revisions)) + 1 }

// watchClient watches a range for as long as the cluster lives: when its member
// is gone it goes on at another one, from where it was.
type watchClient struct {
	sim      *Sim
	key, end []byte
	prevKV   bool
	next     int64 // first revision it has not heard of
	started  bool

	at     *run // nil: not connected
	stream *mvcc.WatchStream
	member *member
}

func (s *Sim) newWatchClient() *watchClient {
	w := &watchClient{sim: s, key: s.key(), end: s.end(), prevKV: s.percent(30)}
	if w.end != nil && w.end[0] != 0 && bytes.Compare(w.key, w.end) >= 0 {
		w.end = nil
	}
	if s.percent(40) {
		w.key, w.end = []byte{0}, []byte{0}
	}
	return w
}

func (w *watchClient) wants(key string) bool {
	switch {
	case w.end == nil:
		return key == string(w.key)
	case w.end[0] == 0:
		return key >= string(w.key)
	}
	return key >= string(w.key) && key < string(w.end)
}

// wanted are the changes of a revision that the client must hear of.
func (w *watchClient) wanted(rev int64) (out []change) {
	for _, c := range w.sim.truth.chronicle.at(rev) {
		if w.wants(c.key) {
			out = append(out, c)
		}
	}
	return out
}

// connect goes on at a member, which may be behind what the client has heard.
func (w *watchClient) connect(m *member) error {
	w.leave()
	if !w.started {
		w.next, w.started = int64(m.store.Revision())+1, true
	}
	w.member, w.at = m, m.run
	w.stream = m.store.Watch(mvcc.WatchStreamOptions{OutboxBytesMax: pick(w.sim.rng, 300, 3000, 1<<20)})
	_, _, err := w.stream.Add(mvcc.WatchSpec{AutoID: true, Key: w.key, End: w.end, PrevKV: w.prevKV, From: mvcc.Revision(w.next)})
	w.sim.counts.Resumes++
	return err
}

func (w *watchClient) leave() {
	if w.stream != nil {
		w.stream.Close()
	}
	w.stream, w.at, w.member = nil, nil, nil
}

// connected reports whether the member still runs that the client is at.
func (w *watchClient) connected() bool { return w.at != nil && w.member.run == w.at }

// listen takes up to n batches.
func (w *watchClient) listen(n int) error {
	for ; n > 0; n-- {
		b, err := w.stream.Next(&once{Context: context.Background()})
		if errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("watcher: %w", err)
		}
		if err := w.hear(b); err != nil || w.stream == nil {
			return err
		}
	}
	return nil
}

// once is a context that ends when something waits for its end.
type once struct {
	context.Context
	waited bool
}

func (o *once) Done() <-chan struct{} {
	o.waited = true
	done := make(chan struct{})
	close(done)
	return done
}

func (o *once) Err() error {
	if o.waited {
		return context.Canceled
	}
	return nil
}

func (w *watchClient) hear(b *mvcc.WatchBatch) error {
	switch b.Kind {
	case mvcc.WatchCompacted:
		return w.compacted(int64(b.CompactRevision))
	case mvcc.WatchProgress:
		return w.skip(int64(b.Revision) + 1)
	case mvcc.WatchEvents:
		return w.events(b.Events)
	}
	return nil
}

// compacted ends the watch: what comes next is gone from the store. The client
// begins again behind that.
func (w *watchClient) compacted(rev int64) error {
	if rev <= w.next || rev > int64(w.sim.truth.store.CompactRevision()) {
		return fmt.Errorf("watcher at revision %d is told of a compaction at %d; the last is at %d",
			w.next, rev, w.sim.truth.store.CompactRevision())
	}
	w.next = rev
	w.leave()
	return nil
}

// skip moves to a revision; nothing before it may be missing.
func (w *watchClient) skip(to int64) error {
	for ; w.next < to; w.next++ {
		if missing := w.wanted(w.next); len(missing) > 0 {
			return fmt.Errorf("watcher of %q to %q did not hear of %v at revision %d", w.key, w.end, missing, w.next)
		}
	}
	return nil
}

func (w *watchClient) events(events []*mvcc.Event) error {
	for len(events) > 0 {
		rev := int64(events[0].Rev())
		if rev < w.next {
			return fmt.Errorf("watcher at revision %d hears of revision %d (again)", w.next, rev)
		}
		if err := w.skip(rev); err != nil {
			return err
		}
		var heard []change
		var records []string
		for len(events) > 0 && int64(events[0].Rev()) == rev {
			heard = append(heard, change{string(events[0].Key()), events[0].Kind() == mvcc.EventDelete})
			if record := string(events[0].Record()); events[0].Kind() == mvcc.EventPut {
				if slices.Contains(records, record) {
					return fmt.Errorf("watcher hears twice of %q at revision %d", events[0].Key(), rev)
				}
				records = append(records, record) // has the version, so no two puts are alike
			}
			events = events[1:]
		}
		want := w.wanted(rev)
		if !sameInTheEnd(heard, want) {
			return fmt.Errorf("watcher of %q to %q hears %v of revision %d, not %v", w.key, w.end, heard, rev, want)
		}
		w.sim.counts.Events += len(heard)
		w.sim.note(uint64(rev), uint64(len(heard)))
		w.next = rev + 1
	}
	return nil
}

// sameInTheEnd compares the events of a revision with the keys that it has
// changed. A transaction may put a key and delete it again, which is two events
// and, for a new key, no change.
func sameInTheEnd(heard, want []change) bool {
	last, times := map[string]change{}, map[string]int{}
	for _, c := range heard {
		last[c.key] = c
		times[c.key]++
	}
	for _, c := range want {
		if have, told := last[c.key]; !told || have != c {
			return false
		}
		delete(last, c.key)
	}
	for key, c := range last {
		if times[key] == 1 || !c.deleted {
			return false
		}
	}
	return true
}

// watch lets one client do something.
func (s *Sim) watch(m *member) error {
	w := s.watchers[s.rng.IntN(len(s.watchers))]
	if !w.connected() || s.percent(2) {
		return w.connect(m)
	}
	if s.percent(10) {
		w.stream.Progress()
	}
	return w.listen(1 + s.rng.IntN(4))
}

// watchedAll lets all clients hear the rest, in the end, and reports whether
// they have missed something.
func (s *Sim) watchedAll() error {
	for _, w := range s.watchers {
		for range 1000 {
			if !w.connected() || !s.hasAll(w.member) {
				if err := w.connect(s.anyWithAll()); err != nil {
					return err
				}
			}
			w.stream.Progress()
			if err := w.listen(1 << 20); err != nil {
				return err
			}
			if w.next > s.truth.chronicle.last() {
				break
			}
		}
		if err := w.skip(s.truth.chronicle.last() + 1); err != nil {
			return fmt.Errorf("in the end: %w", err)
		}
	}
	return nil
}

// hasAll reports whether a member has applied everything. One that does not
// belong to the cluster, or not yet, may run without.
func (s *Sim) hasAll(m *member) bool {
	return m.run != nil && m.store.Applied().Index == uint64(len(s.truth.entries))
}

func (s *Sim) anyWithAll() *member {
	for _, m := range s.members {
		if s.hasAll(m) {
			return m
		}
	}
	return nil
}
