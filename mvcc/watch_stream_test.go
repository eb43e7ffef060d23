package mvcc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/kvorum/kvorum/proto/mvccpb"
)

// watchNext returns the next batch as text, or "" if there is none now.
func watchNext(t testing.TB, ws *WatchStream) string {
	t.Helper()
	b := watchPeek(t, ws)
	if b == nil {
		return ""
	}
	return watchText(b)
}

// watchPeek is Next without waiting.
func watchPeek(t testing.TB, ws *WatchStream) *WatchBatch {
	t.Helper()
	for {
		switch turn := ws.turn(); turn {
		case watchTurnBatch:
			for _, e := range ws.batch.Events {
				if err := e.prepare(ws.hub.past, ws.batch.PrevKV); err != nil {
					t.Fatal(err)
				}
			}
			return &ws.batch
		case watchTurnRead:
			if err := ws.readSlice(); err != nil {
				t.Fatal(err)
			}
		case watchTurnAskAgain:
			ws.Progress()
		case watchTurnAgain:
		case watchTurnWait:
			return nil
		default:
			t.Fatalf("turn %d", turn)
		}
	}
}

func watchExpect(t testing.TB, ws *WatchStream, want ...string) {
	t.Helper()
	for i, text := range append(want, "") {
		if got := watchNext(t, ws); got != text {
			t.Fatalf("batch %d: %q, want %q", i, got, text)
		}
	}
}

func watchAdd(t testing.TB, ws *WatchStream, spec WatchSpec) int64 {
	t.Helper()
	spec.AutoID = true
	id, _, err := ws.Add(spec)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// A client that names its watchers itself, or lets the server do it, gets another's events.
func TestWatchIDs(t *testing.T) {
	p := newWatchPast()
	ws := p.hub.newStream(WatchStreamOptions{})
	defer ws.Close()
	add := func(spec WatchSpec, wantID int64, wantErr error) {
		t.Helper()
		id, now, err := ws.Add(spec)
		if id != wantID || now != 1 || !errors.Is(err, wantErr) {
			t.Fatalf("Add(%+v) = %d, %d, %v, want %d, 1, %v", spec, id, now, err, wantID, wantErr)
		}
	}
	key := []byte("k")
	add(WatchSpec{AutoID: true, Key: key}, 0, nil)
	add(WatchSpec{ID: 1, Key: key}, 1, nil)
	add(WatchSpec{ID: -7, Key: key}, -7, nil)
	add(WatchSpec{AutoID: true, Key: key}, 2, nil)
	add(WatchSpec{ID: 2, Key: key}, -1, ErrWatcherExists)
	add(WatchSpec{ID: 9, Key: key, End: []byte("k")}, -1, ErrEmptyWatchRange)
	add(WatchSpec{ID: 9, Key: key, End: []byte("a")}, -1, ErrEmptyWatchRange)
	add(WatchSpec{ID: 9, Key: key, End: []byte("\x00")}, 9, nil)
	add(WatchSpec{ID: 10, End: []byte("b")}, 10, nil)
	add(WatchSpec{ID: 11, Key: key, From: -1}, -1, ErrCompacted)
	if !ws.Cancel(2) || ws.Cancel(2) {
		t.Fatal("a watcher can be canceled once")
	}
	add(WatchSpec{ID: 2, Key: key}, 2, nil)
	add(WatchSpec{AutoID: true, Key: key}, 3, nil)
}

// A watcher gets events of other keys, or misses its own.
func TestWatchLive(t *testing.T) {
	p := newWatchPast()
	ws := p.hub.newStream(WatchStreamOptions{})
	defer ws.Close()
	watchAdd(t, ws, WatchSpec{Key: []byte("a")})
	watchAdd(t, ws, WatchSpec{Key: []byte("a"), End: []byte("c"), NoPut: true})
	watchAdd(t, ws, WatchSpec{End: []byte("\x00"), NoDelete: true})
	watchExpect(t, ws)
	p.put("a", "b", "d")
	watchExpect(t, ws, "events 0 @2: +a@2", "events 2 @2: +a@2 +b@2 +d@2")
	p.publish(p.change(true, watchChange{key: "a", delete: true}, watchChange{key: "d", delete: true}))
	watchExpect(t, ws, "events 0 @3: -a@3", "events 1 @3: -a@3")
	p.put("a")
	p.put("a")
	watchExpect(t, ws, "events 0 @5: +a@4 +a@5", "events 2 @5: +a@4 +a@5")
	if p.reads != 0 {
		t.Fatalf("live watchers read history %d times", p.reads)
	}
}

// A client that resumes at a revision sees a gap, or hears of events before it.
func TestWatchFrom(t *testing.T) {
	p := newWatchPast()
	for range 4 {
		p.put("a")
	}
	ws := p.hub.newStream(WatchStreamOptions{})
	defer ws.Close()
	watchAdd(t, ws, WatchSpec{Key: []byte("a"), From: 4, Announce: true})
	watchAdd(t, ws, WatchSpec{Key: []byte("a"), From: 7, Announce: true})
	watchAdd(t, ws, WatchSpec{Key: []byte("a"), From: 6, Announce: true})
	watchExpect(t, ws, "created 0 @5", "created 1 @5", "created 2 @5", "events 0 @5: +a@4 +a@5")
	p.put("a")
	watchExpect(t, ws, "events 2 @6: +a@6", "events 0 @6: +a@6")
	p.put("a")
	got := []string{watchNext(t, ws), watchNext(t, ws), watchNext(t, ws)}
	slices.Sort(got)
	if want := "events 0 @7: +a@7,events 1 @7: +a@7,events 2 @7: +a@7"; strings.Join(got, ",") != want {
		t.Fatalf("%q, want %q", got, want)
	}
}

// A client waits for ever on a revision that is gone, or loses what it could still read.
func TestWatchCompacted(t *testing.T) {
	p := newWatchPast()
	for range 4 {
		p.put("a")
	}
	p.compact(4)
	ws := p.hub.newStream(WatchStreamOptions{OutboxBytesMax: 200})
	defer ws.Close()
	watchAdd(t, ws, WatchSpec{Key: []byte("a"), From: 3, Announce: true})
	watchAdd(t, ws, WatchSpec{Key: []byte("a"), From: 4})
	watchExpect(t, ws, "created 0 @5", "compacted 0 to 4 @0", "events 1 @5: +a@4 +a@5")

	// Overtaken while behind: what the outbox holds is still delivered.
	for range 4 {
		p.put("a")
	}
	if ws.Synced(1) {
		t.Fatal("four events fit in an outbox for two")
	}
	p.compact(9)
	watchExpect(t, ws, "events 1 @7: +a@6 +a@7", "compacted 1 to 9 @0")
	if ws.Cancel(1) {
		t.Fatal("a compacted watcher is still there")
	}
	if p.hub.index.size != 0 || p.hub.stats() != (WatchStats{Streams: 1, Events: 8}) {
		t.Fatalf("left over: %+v", p.hub.stats())
	}
}

// A slow client loses events, gets some twice, or sees half a transaction.
func TestWatchFallsBehindAndReturns(t *testing.T) {
	p := newWatchPast()
	ws := p.hub.newStream(WatchStreamOptions{OutboxBytesMax: 300})
	defer ws.Close()
	watchAdd(t, ws, WatchSpec{End: []byte("\x00")})
	p.put("a")
	p.put("a", "b", "c", "d") // fits in part
	p.put("a")
	if ws.Synced(0) || p.hub.stats().Behind != 1 || p.hub.stats().Pending != 1 {
		t.Fatalf("not behind with one event: %+v", p.hub.stats())
	}
	watchExpect(t, ws, "events 0 @2: +a@2", "events 0 @4: +a@3 +b@3 +c@3 +d@3 +a@4")
	if !ws.Synced(0) {
		t.Fatal("not live at the head")
	}
	p.put("a")
	watchExpect(t, ws, "events 0 @5: +a@5")
}

// A batch with more than 1000 revisions, or a split one, breaks clients.
func TestWatchCatchUpBatches(t *testing.T) {
	p := newWatchPast()
	for range 2500 {
		p.put("a", "b")
	}
	ws := p.hub.newStream(WatchStreamOptions{})
	defer ws.Close()
	watchAdd(t, ws, WatchSpec{End: []byte("\x00"), From: 1})
	watchAdd(t, ws, WatchSpec{Key: []byte("a"), From: 2})
	next := map[int64]Revision{0: 2, 1: 2}
	for b := watchPeek(t, ws); b != nil; b = watchPeek(t, ws) {
		per := 2 - int(b.ID) // events in one revision
		if b.Revision != 2501 || len(b.Events) > per*watchRevisionsMax {
			t.Fatalf("batch of %d events, header revision %d", len(b.Events), b.Revision)
		}
		for i, e := range b.Events {
			if e.rev != next[b.ID] {
				t.Fatalf("watcher %d: event %d of revision %d, want %d", b.ID, i, e.rev, next[b.ID])
			}
			if i%per == per-1 {
				next[b.ID]++
			}
		}
	}
	if next[0] != 2502 || next[1] != 2502 || p.reads > 6 {
		t.Fatalf("read to %v in %d slices", next, p.reads)
	}
	for range 1500 {
		p.put("a")
	}
	for range 2 {
		if b := watchPeek(t, ws); len(b.Events) != watchRevisionsMax || b.Revision != 3501 {
			t.Fatalf("live batch of watcher %d: %d events @%d", b.ID, len(b.Events), b.Revision)
		}
	}
}

// A publish waits for somebody who reads the past, or loses an event to the race.
func TestWatchPublishDuringCatchUp(t *testing.T) {
	p := newWatchPast()
	p.put("a")
	ws := p.hub.newStream(WatchStreamOptions{})
	defer ws.Close()
	puts := 3
	p.onRead = func() { // would deadlock if a lock were held
		if puts--; puts >= 0 {
			p.put("a")
			ws.Progress()
		}
	}
	watchAdd(t, ws, WatchSpec{Key: []byte("a"), From: 1})
	watchExpect(t, ws, "events 0 @2: +a@2", "events 0 @3: +a@3", "events 0 @4: +a@4", "events 0 @5: +a@5")
}

// A live watcher waits until its neighbour has read half a million revisions.
func TestWatchLiveIsNotDelayedByBehind(t *testing.T) {
	p := newWatchPast()
	for range 20000 {
		p.put("old")
	}
	ws := p.hub.newStream(WatchStreamOptions{})
	defer ws.Close()
	watchAdd(t, ws, WatchSpec{Key: []byte("old"), From: 1})
	watchAdd(t, ws, WatchSpec{Key: []byte("old"), From: 19990})
	watchAdd(t, ws, WatchSpec{Key: []byte("new")})
	if b := watchPeek(t, ws); b.ID != 0 || len(b.Events) > watchRevisionsMax {
		t.Fatalf("first batch is of %d with %d events", b.ID, len(b.Events))
	}
	if b := watchPeek(t, ws); b.ID != 1 || len(b.Events) != 12 {
		t.Fatalf("the nearly live watcher waits for watcher %d", b.ID)
	}
	for range 5 {
		rev := p.put("new")
		late := 0
		for b := watchPeek(t, ws); b.ID != 2; b = watchPeek(t, ws) {
			late += len(b.Events)
		}
		if late > watchSliceRecordsMax || ws.batch.Revision != rev {
			t.Fatalf("the live watcher waited for %d events", late)
		}
	}
}

// Ten thousand watchers that fall behind together read ten thousand times, and never catch up.
func TestWatchBehindReadTogether(t *testing.T) {
	p := newWatchPast()
	for range 100 {
		p.put("a")
	}
	ws := p.hub.newStream(WatchStreamOptions{})
	defer ws.Close()
	for range 3000 {
		watchAdd(t, ws, WatchSpec{Key: []byte("a"), From: 2})
	}
	got := 0
	for b := watchPeek(t, ws); b != nil; b = watchPeek(t, ws) {
		got += len(b.Events)
	}
	if got != 300000 || p.reads > 100 {
		t.Fatalf("%d events in %d reads", got, p.reads)
	}
}

// An update comes without the old value that the client asked for.
func TestWatchPrevKV(t *testing.T) {
	for _, keep := range []bool{true, false} {
		for _, live := range []bool{true, false} {
			p := newWatchPast()
			ws := p.hub.newStream(WatchStreamOptions{})
			add := func() {
				watchAdd(t, ws, WatchSpec{Key: []byte("a"), From: 2, PrevKV: true})
				watchAdd(t, ws, WatchSpec{Key: []byte("a"), From: 2})
			}
			if live {
				add()
			}
			p.publish(p.change(keep, watchChange{key: "a", value: "1"}))
			p.publish(p.change(keep, watchChange{key: "a", value: "2"}))
			p.publish(p.change(keep, watchChange{key: "a", delete: true}))
			p.publish(p.change(keep, watchChange{key: "a", value: "3"}))
			if !live {
				add()
			}
			for range 2 {
				b := watchPeek(t, ws)
				want := "PUT=1 PUT=2 DELETE= PUT=3"
				if b.PrevKV {
					want = "PUT=1 PUT=2<1 DELETE=<2 PUT=3"
				}
				if got := watchDecode(t, b); got != want {
					t.Fatalf("keep %v, live %v: %s, want %s", keep, live, got, want)
				}
			}
			ws.Close()
		}
	}
}

func watchDecode(t testing.TB, b *WatchBatch) string {
	t.Helper()
	var texts []string
	for _, e := range b.Events {
		var pb mvccpb.Event
		if err := pb.UnmarshalVT(e.Encoded(b.PrevKV)); err != nil {
			t.Fatal(err)
		}
		if pb.Kv.ModRevision != int64(e.rev) || e.Size(b.PrevKV) != pb.SizeVT() {
			t.Fatalf("event %v of revision %d and size %d", &pb, e.rev, e.Size(b.PrevKV))
		}
		text := fmt.Sprintf("%v=%s", pb.Type, pb.Kv.Value)
		if pb.PrevKv != nil {
			text += "<" + string(pb.PrevKv.Value)
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, " ")
}

// An update whose old value is compacted ends the watch instead of coming without it.
func TestWatchPrevKVCompacted(t *testing.T) {
	p := newWatchPast()
	ws := p.hub.newStream(WatchStreamOptions{})
	defer ws.Close()
	watchAdd(t, ws, WatchSpec{Key: []byte("a"), PrevKV: true})
	p.put("a")
	p.publish(p.change(false, watchChange{key: "a", value: "2"}))
	p.compact(3)
	if got := watchDecode(t, watchPeek(t, ws)); got != "PUT=value PUT=2" {
		t.Fatal(got)
	}
}

// Fan-out costs an encoding, or a read of the old value, for each watcher.
func TestWatchersShareOneEncoding(t *testing.T) {
	const streams = 500
	p := newWatchPast()
	p.put("a")
	var all []*WatchStream
	for i := range streams {
		ws := p.hub.newStream(WatchStreamOptions{})
		defer ws.Close()
		watchAdd(t, ws, WatchSpec{Key: []byte("a"), PrevKV: i%2 == 0})
		all = append(all, ws)
	}
	p.publish(p.change(false, watchChange{key: "a", value: "2"}))
	encoded := make([][]byte, streams)
	var group sync.WaitGroup
	for i, ws := range all {
		group.Go(func() {
			b, err := ws.Next(context.Background())
			if err != nil {
				t.Error(err)
				return
			}
			encoded[i] = b.Events[0].Encoded(b.PrevKV)
		})
	}
	group.Wait()
	for i, b := range encoded {
		if &b[0] != &encoded[i%2][0] {
			t.Fatalf("watcher %d has an encoding of its own", i)
		}
	}
	if p.values != 1 {
		t.Fatalf("the old value was read %d times", p.values)
	}
}

// A client takes progress for a promise and misses events that came after it.
func TestWatchProgress(t *testing.T) {
	p := newWatchPast()
	ws := p.hub.newStream(WatchStreamOptions{})
	defer ws.Close()
	if ws.Progress() {
		t.Fatal("progress of no watchers")
	}
	watchAdd(t, ws, WatchSpec{Key: []byte("a")})
	watchAdd(t, ws, WatchSpec{Key: []byte("b")})
	if !ws.Progress() {
		t.Fatal("no progress of live watchers")
	}
	watchExpect(t, ws, "progress -1 @1")

	// The answer stands between the events before and after it.
	p.put("a")
	p.put("other")
	ws.Progress()
	ws.Progress()
	p.put("a")
	p.put("b")
	ws.Progress()
	p.put("a")
	ws.Progress()
	watchExpect(t, ws, "events 0 @2: +a@2", "progress -1 @3", "events 1 @5: +b@5", "events 0 @6: +a@4 +a@6", "progress -1 @6")
}

// A progress answer covers a watcher that has not read its past, or waits for the future.
func TestWatchProgressNotSynced(t *testing.T) {
	p := newWatchPast()
	ws := p.hub.newStream(WatchStreamOptions{})
	defer ws.Close()
	watchAdd(t, ws, WatchSpec{Key: []byte("a")})
	p.put("a")
	p.put("other")
	ws.Progress()
	watchAdd(t, ws, WatchSpec{Key: []byte("a"), From: 2}) // after the question, before the answer
	watchExpect(t, ws, "events 0 @2: +a@2", "events 1 @3: +a@2")
	ws.Progress()
	watchExpect(t, ws, "progress -1 @3")

	ws.Progress()
	p.put("other")
	watchAdd(t, ws, WatchSpec{Key: []byte("a")}) // created at 4, so the answer must not say 3
	watchExpect(t, ws, "progress -1 @4")

	watchAdd(t, ws, WatchSpec{Key: []byte("a"), From: 6})
	if ws.Progress() {
		t.Fatal("progress while a watcher waits for a future revision")
	}
	p.put("other")
	if ws.Progress() {
		t.Fatal("progress while a watcher waits for a future revision")
	}
	p.put("other")
	if !ws.Progress() {
		t.Fatal("no progress although the revision has come")
	}
	watchExpect(t, ws, "progress -1 @6")
}

// A quiet watcher is not told that it is quiet, or a busy one is.
func TestWatchTick(t *testing.T) {
	p := newWatchPast()
	ws := p.hub.newStream(WatchStreamOptions{})
	defer ws.Close()
	ws.Tick()
	watchExpect(t, ws)
	watchAdd(t, ws, WatchSpec{Key: []byte("a")})
	watchAdd(t, ws, WatchSpec{Key: []byte("b")})
	watchAdd(t, ws, WatchSpec{Key: []byte("b"), From: 10})
	p.put("a")
	ws.Tick()
	ws.Tick()
	p.put("b")
	watchExpect(t, ws, "events 0 @2: +a@2", "idle [1] @2", "events 1 @3: +b@3")
	ws.Tick()
	watchExpect(t, ws, "idle [0] @3")
	ws.Tick()
	watchExpect(t, ws, "idle [0 1] @3")
	ws.Cancel(0)
	watchAdd(t, ws, WatchSpec{Key: []byte("a"), From: 1})
	ws.Tick()
	watchExpect(t, ws, "idle [1] @3", "events 3 @3: +a@2")
	ws.Tick()
	ws.Tick()
	watchAdd(t, ws, WatchSpec{Key: []byte("a"), Announce: true})
	watchExpect(t, ws, "idle [1] @3", "created 4 @3")
}

// Events of a watcher reach the client after it was told that the watcher is canceled.
func TestWatchCancelDropsEvents(t *testing.T) {
	p := newWatchPast()
	ws := p.hub.newStream(WatchStreamOptions{})
	defer ws.Close()
	watchAdd(t, ws, WatchSpec{Key: []byte("a")})
	watchAdd(t, ws, WatchSpec{Key: []byte("a")})
	watchAdd(t, ws, WatchSpec{Key: []byte("a"), From: 1})
	p.put("a")
	ws.Cancel(0)
	ws.Cancel(2)
	ws.Reply("canceled")
	p.put("a")
	watchExpect(t, ws, "events 1 @3: +a@2 +a@3", "reply canceled")
	ws.Cancel(1)
	if p.hub.index.size != 0 || p.hub.stats() != (WatchStats{Streams: 1, Events: 2}) {
		t.Fatalf("left over: %+v", p.hub.stats())
	}
}

// After a snapshot was installed, watchers skip what happened in between.
func TestWatchReset(t *testing.T) {
	p := newWatchPast()
	ws := p.hub.newStream(WatchStreamOptions{})
	defer ws.Close()
	watchAdd(t, ws, WatchSpec{Key: []byte("a")})
	watchAdd(t, ws, WatchSpec{Key: []byte("a"), From: 5})
	p.put("a")
	for range 3 {
		p.change(true, watchChange{key: "a"})
	}
	p.hub.reset(p.now)
	if ws.Synced(0) || ws.Progress() {
		t.Fatal("live without the events of the snapshot")
	}
	watchExpect(t, ws, "events 0 @2: +a@2", "events 1 @5: +a@5", "events 0 @5: +a@3 +a@4 +a@5")
	p.put("a")
	watchExpect(t, ws, "events 1 @6: +a@6", "events 0 @6: +a@6")
}

// A sender sleeps through an event, or hangs after its stream was closed.
func TestWatchNextWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newWatchPast()
		ws := p.hub.newStream(WatchStreamOptions{})
		watchAdd(t, ws, WatchSpec{Key: []byte("a")})
		var got []string
		var ended error
		go func() {
			for {
				b, err := ws.Next(t.Context())
				if err != nil {
					ended = err
					return
				}
				got = append(got, watchText(b))
			}
		}()
		for _, step := range []struct {
			do   func()
			want string
		}{
			{func() { p.put("a") }, "events 0 @2: +a@2"},
			{func() { ws.Progress() }, "progress -1 @2"},
			{func() { ws.Tick(); synctest.Wait(); ws.Tick() }, "idle [0] @2"},
			{func() { ws.Reply(1) }, "reply 1"},
			{func() { watchAdd(t, ws, WatchSpec{Key: []byte("a"), From: 1}) }, "events 1 @2: +a@2"},
		} {
			got = nil
			synctest.Wait()
			step.do()
			synctest.Wait()
			if !slices.Equal(got, []string{step.want}) {
				t.Fatalf("%q, want %q", got, step.want)
			}
		}
		ws.Close()
		ws.Close()
		synctest.Wait()
		if !errors.Is(ended, ErrWatchStreamClosed) {
			t.Fatalf("Next ended with %v", ended)
		}
		if _, _, err := ws.Add(WatchSpec{}); !errors.Is(err, ErrWatchStreamClosed) || ws.Cancel(0) || ws.Progress() {
			t.Fatalf("a closed stream takes watchers: %v", err)
		}
		p.put("a")
		if p.hub.index.size != 0 || p.hub.stats() != (WatchStats{Events: 2}) {
			t.Fatalf("left over: %+v", p.hub.stats())
		}
	})
}

// A canceled call goes on, or one that failed to read pretends that nothing happened.
func TestWatchNextErrors(t *testing.T) {
	p := newWatchPast()
	ws := p.hub.newStream(WatchStreamOptions{})
	defer ws.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := ws.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	p.put("a")
	p.fail = errors.New("disk is broken")
	watchAdd(t, ws, WatchSpec{Key: []byte("a"), From: 1})
	if _, err := ws.Next(context.Background()); !errors.Is(err, p.fail) {
		t.Fatal(err)
	}
	ws.Cancel(0)
	watchAdd(t, ws, WatchSpec{Key: []byte("a"), PrevKV: true})
	p.publish(p.change(false, watchChange{key: "a", value: "2"}))
	if _, err := ws.Next(context.Background()); !errors.Is(err, p.fail) {
		t.Fatal(err)
	}
}

// A client that asks without reading fills the server's memory.
func TestWatchWaitRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newWatchPast()
		ws := p.hub.newStream(WatchStreamOptions{})
		asked := 0
		go func() {
			for ws.WaitRoom(t.Context()) == nil {
				ws.Reply(asked)
				asked++
			}
			asked = -1
		}()
		synctest.Wait()
		if asked != watchNotesMax {
			t.Fatalf("%d replies taken, want %d", asked, watchNotesMax)
		}
		for i := range 10 {
			if b, err := ws.Next(t.Context()); err != nil || b.Reply != i {
				t.Fatalf("reply %v, %v, want %d", b, err, i)
			}
			synctest.Wait()
		}
		if asked != watchNotesMax+10 {
			t.Fatalf("%d replies taken, want %d", asked, watchNotesMax+10)
		}
		ws.Close()
		synctest.Wait()
		if asked != -1 {
			t.Fatal("the asker hangs")
		}
	})
}

// Clients that leave while the store is written bring the member down, or leave watchers behind.
func TestWatchCloseWhilePublishing(t *testing.T) {
	p := newWatchPast()
	var clients sync.WaitGroup
	for i := range 4 {
		clients.Go(func() {
			for round := range 20 {
				ws := p.hub.newStream(WatchStreamOptions{OutboxBytesMax: 2000})
				for j := range 50 {
					watchAdd(t, ws, WatchSpec{Key: []byte("a"), End: []byte("b"), From: Revision((i + j) % 2)})
				}
				for range round {
					if _, err := ws.Next(t.Context()); err != nil {
						t.Error(err)
					}
				}
				ws.Close()
			}
		})
	}
	left := make(chan struct{})
	go func() {
		clients.Wait()
		close(left)
	}()
	for {
		p.put("a", "ab", "c")
		select {
		case <-left:
			p.put("a")
			if p.hub.index.size != 0 || p.hub.stats().Streams != 0 {
				t.Fatalf("left over: %d watchers, %+v", p.hub.index.size, p.hub.stats())
			}
			return
		default:
		}
	}
}

// A value larger than the outbox sends its watcher to the disk each time.
func TestWatchLargeEvent(t *testing.T) {
	p := newWatchPast()
	ws := p.hub.newStream(WatchStreamOptions{OutboxBytesMax: 1000})
	defer ws.Close()
	watchAdd(t, ws, WatchSpec{Key: []byte("a")})
	for range 3 {
		p.publish(p.change(true, watchChange{key: "a", value: strings.Repeat("x", 5000)}))
		if !ws.Synced(0) || watchNext(t, ws) == "" {
			t.Fatal("behind after one event")
		}
	}
	if p.reads != 0 {
		t.Fatalf("%d reads of history", p.reads)
	}
}
