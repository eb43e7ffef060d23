package state

import (
	"context"
	"math/rand"
	"os"
	"testing"
	"time"

	"github.com/kvorum/kvorum/mvcc"
)

func (m *member) applyEntry(e entry) Result {
	if e.conf != nil {
		return m.machine.ApplyConfChange(m.next(), *e.conf)
	}
	return m.machine.Apply(m.next(), e.data)
}

// runFlusher runs the store's flusher until the returned function is called.
func (m *member) runFlusher() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	store := m.store
	go func() { done <- store.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil && ctx.Err() == nil {
			m.t.Errorf("flusher: %v", err)
		}
	}
}

// twins are two members that apply the same entries: one publishes each entry
// and flushes all the time, the other publishes in batches, flushes now and
// then, and crashes.
type twins struct {
	t           *testing.T
	random      *rand.Rand
	source      *commandSource
	calm, hasty *member
	log         []entry  // the entry of index i+1
	results     []string // of the calm one
	stopFlusher func()
}

// If this fails, members of one cluster come to hold different data or give
// different answers to the same command, for nothing but when each of them
// wrote to its disk or was restarted.
func TestTwinsStayEqual(t *testing.T) {
	entries := 4000
	if os.Getenv("KVORUM_LONG") != "" {
		entries = 400_000
	}
	random := randomOf(t)
	w := &twins{t: t, random: random, source: &commandSource{random: random}, calm: newMember(t), hasty: newMember(t)}
	w.stopFlusher = w.calm.runFlusher()
	for len(w.log) < entries {
		w.batch()
		switch w.random.Intn(40) {
		case 0, 1:
			if err := w.hasty.store.Flush(); err != nil {
				t.Fatal(err)
			}
		case 2:
			w.compare()
		case 3:
			w.crash()
		case 4:
			w.restart()
		}
	}
	w.compare()
	w.stopFlusher()
	w.checkVariety()
}

// batch lets both apply the same few entries.
func (w *twins) batch() {
	w.t.Helper()
	for range 1 + w.random.Intn(10) {
		e := w.source.next(w.calm.machine)
		want := w.calm.applyEntry(e)
		w.calm.store.Publish()
		w.log, w.results = append(w.log, e), append(w.results, describe(want))
		w.applyHasty()
	}
	w.hasty.store.Publish()
}

// applyHasty gives the hasty one the next entry that it has not been given.
func (w *twins) applyHasty() {
	w.t.Helper()
	at := w.hasty.index
	got := w.hasty.applyEntry(w.log[at])
	if d := describe(got); d != w.results[at] && !got.Skipped {
		w.t.Fatalf("entry %d (%x, %+v)\n gave %s\n then %s", at+1, w.log[at].data, w.log[at].conf, w.results[at], d)
	}
}

// crash restarts the hasty one from what its file holds and replays, beginning
// with entries that the file reflects already.
func (w *twins) crash() {
	w.t.Helper()
	end := w.hasty.index
	w.hasty = w.hasty.crashedCopy()
	flushed := w.hasty.index
	w.hasty.index -= min(flushed, uint64(w.random.Intn(50)))
	for w.hasty.index < end {
		w.applyHasty()
		if w.random.Intn(5) == 0 {
			w.hasty.store.Publish()
		}
	}
	w.hasty.store.Publish()
}

// restart stops the calm one in good order and starts it again.
func (w *twins) restart() {
	w.t.Helper()
	w.stopFlusher()
	w.calm.restart()
	w.stopFlusher = w.calm.runFlusher()
}

func (w *twins) compare() {
	w.t.Helper()
	calm, hasty := w.calm.image()+w.calm.memory(), w.hasty.image()+w.hasty.memory()
	if calm != hasty {
		w.t.Fatalf("after entry %d the members differ\none:\n%s\nother:\n%s", len(w.log), calm, hasty)
	}
	before := w.hasty.memory()
	if err := w.hasty.machine.Reload(); err != nil {
		w.t.Fatal(err)
	}
	if after := w.hasty.memory(); after != before {
		w.t.Fatalf("after entry %d memory and store differ\nmemory:\n%s\nstore:\n%s", len(w.log), before, after)
	}
}

// checkVariety makes sure that the stream was not refused as a whole.
func (w *twins) checkVariety() {
	w.t.Helper()
	seen := map[string]int{}
	for _, r := range w.results {
		seen[r]++
	}
	if len(seen) < len(w.results)/20 {
		w.t.Errorf("only %d different results among %d", len(seen), len(w.results))
	}
	if w.calm.store.Revision() < mvcc.Revision(len(w.log)/40) {
		w.t.Errorf("only %d revisions after %d entries", w.calm.store.Revision(), len(w.log))
	}
}

// If this fails, a refused command has changed something after all, and a
// client that was told "no" finds its change made.
func TestRefusedCommandsChangeNothing(t *testing.T) {
	random := randomOf(t)
	source := &commandSource{random: random}
	m := newMember(t)
	refused := 0
	deadline := time.Now().Add(3 * time.Second) // images cost; the seed fixes what is drawn, not how much
	for n := 0; n < 2000 && (n < 500 || time.Now().Before(deadline)); n++ {
		before := m.image() + m.memory()
		e := source.next(m.machine)
		res := m.applyEntry(e)
		m.store.Publish()
		if m.store.Applied().Index != m.index {
			t.Fatalf("after entry %d the applied index is %d", m.index, m.store.Applied().Index)
		}
		if res.Err == nil {
			continue
		}
		refused++
		if res.Response != nil || res.Leases != nil || res.Member != nil || res.Token != nil || res.CompactTo != 0 {
			t.Fatalf("entry %d was refused and yet: %s", m.index, describe(res))
		}
		if after := m.image() + m.memory(); after != before {
			t.Fatalf("entry %d (%x, %+v) was refused: %v\nbefore:\n%s\nafter:\n%s", m.index, e.data, e.conf, res.Err, before, after)
		}
	}
	if refused < 100 {
		t.Fatalf("only %d refused", refused)
	}
}
