package grpcproxy

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// watching is one client's watch stream.
type watching struct {
	t *testing.T
	pb.Watch_WatchClient
}

func openWatch(t *testing.T, ctx context.Context, p *Proxy) *watching {
	t.Helper()
	s, err := pb.NewWatchClient(dial(t, p)).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &watching{t, s}
}

func (w *watching) ask(r *pb.WatchRequest) {
	w.t.Helper()
	if err := w.Send(r); err != nil {
		w.t.Fatal(err)
	}
}

func (w *watching) create(r *pb.WatchCreateRequest) *pb.WatchResponse {
	w.t.Helper()
	w.ask(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}})
	return w.next()
}

func (w *watching) cancel(id int64) {
	w.t.Helper()
	w.ask(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
}

func (w *watching) progress() {
	w.t.Helper()
	w.ask(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
}

func (w *watching) next() *pb.WatchResponse {
	w.t.Helper()
	r, err := w.Recv()
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// expect receives events of the revisions from first to last, each once.
func (w *watching) expect(first, last int64) {
	w.t.Helper()
	for want := first; want <= last; {
		r := w.next()
		if len(r.Events) == 0 {
			w.t.Fatalf("waiting for revision %d: %v", want, r)
		}
		for _, e := range r.Events {
			if e.Kv.ModRevision != want {
				w.t.Fatalf("revision %d, want %d", e.Kv.ModRevision, want)
			}
			want++
		}
	}
}

func watchKey(key string, start int64) *pb.WatchCreateRequest {
	return &pb.WatchCreateRequest{Key: []byte(key), StartRevision: start}
}

// If this fails, one client that does not read holds up the others, or loses
// events.
func TestSlowWatcherIsOnItsOwn(t *testing.T) {
	m := startMember(t)
	p := startProxy(t, m)
	ctx := testContext(t)
	slow, fast := openWatch(t, ctx, p), openWatch(t, ctx, p)
	slow.create(watchKey("k", 0))
	fast.create(watchKey("k", 0))
	if n := m.count(&m.watches); n != 1 {
		t.Errorf("%d watches on the member, want 1", n)
	}
	const writes, sizeBytes = 3000, 2000 // far beyond what sockets hold
	value := strings.Repeat("x", sizeBytes)
	for i := range writes {
		m.write("k", value)
		if i%100 == 99 {
			fast.expect(int64(i-97), int64(i+2))
		}
	}
	eventually(t, "the slow watcher has a watch of its own", func() bool { return m.count(&m.watches) > 1 })
	slow.expect(2, writes+1)
	m.write("k", "last")
	slow.expect(writes+2, writes+2)
	fast.expect(writes+2, writes+2)
	eventually(t, "the slow watcher shares a watch again", func() bool {
		watchers, feeds, _ := p.hub.stats()
		return watchers == 2 && feeds == 1
	})
}

// If this fails, a member that dies costs watchers an event, or gives them one
// twice.
func TestWatchGoesOnAfterAFailure(t *testing.T) {
	m := startMember(t)
	p := startProxy(t, m)
	ctx := testContext(t)
	live, old := openWatch(t, ctx, p), openWatch(t, ctx, p)
	m.write("k", "a")
	live.create(watchKey("k", 0))
	old.create(watchKey("k", 2))
	old.expect(2, 2)
	for range 5 {
		first := m.write("k", "b")
		live.expect(first, first)
		m.breakStreams()
		m.write("k", "c")
		last := m.write("k", "d")
		live.expect(first+1, last)
		old.expect(first, last)
	}
	// What comes next is still there, though what came last is compacted.
	last := m.write("k", "e")
	live.expect(last, last)
	old.expect(last, last)
	m.mu.Lock()
	m.compacted = last + 1
	m.mu.Unlock()
	m.breakStreams()
	last = m.write("k", "f")
	live.expect(last, last)
	old.expect(last, last)

	m.mu.Lock()
	m.compacted = last + 10
	m.mu.Unlock()
	m.breakStreams()
	if r := live.next(); !r.Canceled || r.CompactRevision != last+10 {
		t.Errorf("after history is gone: %v", r)
	}
}

// If this fails, a client that asks how far it is believes to have seen what it
// has not, or waits without end.
func TestProgressOfAStream(t *testing.T) {
	m := startMember(t)
	p := startProxy(t, m)
	w := openWatch(t, testContext(t), p)
	w.progress() // without a watcher there is no answer
	if r := w.create(watchKey("a", 0)); r.WatchId != 0 || r.Header.Revision != 1 || r.Header.ClusterId != 7 {
		t.Errorf("created %v", r)
	}
	if r := w.create(watchKey("b", 0)); r.WatchId != 1 {
		t.Errorf("created %v", r)
	}
	m.write("other", "x")
	w.progress()
	if r := w.next(); r.WatchId != -1 || len(r.Events) > 0 || r.Header.Revision != 2 {
		t.Errorf("progress %v, want revision 2 for all", r)
	}
	w.create(watchKey("a", 5)) // waits for a revision to come
	w.progress()
	m.write("b", "x")
	if r := w.next(); r.WatchId != 1 || len(r.Events) != 1 {
		t.Errorf("got %v, want the event and no progress", r)
	}
	w.cancel(2)
	if r := w.next(); r.WatchId != 2 || !r.Canceled {
		t.Errorf("got %v, want the end of watcher 2", r)
	}
	w.progress()
	if r := w.next(); r.WatchId != -1 || r.Header.Revision != 3 {
		t.Errorf("progress %v, want revision 3 for all", r)
	}
}

// If this fails, clients cannot rely on the answers to a creation and to a
// cancellation that members give.
func TestWatchRequests(t *testing.T) {
	m := startMember(t)
	p := startProxy(t, m)
	ctx := testContext(t)
	w := openWatch(t, ctx, p)
	chosen := watchKey("a", 0)
	chosen.WatchId = 1
	if r := w.create(chosen); r.WatchId != 1 || !r.Created {
		t.Errorf("a chosen ID: %v", r)
	}
	if r := w.create(chosen); r.WatchId != -1 || !r.Canceled || r.CancelReason != errDuplicateID {
		t.Errorf("the same ID again: %v", r)
	}
	for _, want := range []int64{0, 2} {
		if r := w.create(watchKey("a", 0)); r.WatchId != want {
			t.Errorf("got ID %d, want %d", r.WatchId, want)
		}
	}
	w.cancel(99) // no answer
	w.cancel(2)
	if r := w.next(); r.WatchId != 2 || !r.Canceled || r.Created {
		t.Errorf("canceled: %v", r)
	}
	stranger := openWatch(t, metadata.AppendToOutgoingContext(ctx, "token", "stranger"), p)
	r := stranger.create(watchKey("a", 0))
	if want := "rpc error: code = PermissionDenied desc = etcdserver: permission denied"; r.WatchId != -1 || !r.Created || !r.Canceled || r.CancelReason != want {
		t.Errorf("a stranger got %v, want %q", r, want)
	}
	m.mu.Lock()
	m.compacted = 10
	m.mu.Unlock()
	late := openWatch(t, ctx, p)
	for range 20 {
		m.write("late", "x")
	}
	if r := late.create(watchKey("late", 3)); !r.Created || r.Canceled {
		t.Errorf("from a compacted revision: %v", r)
	}
	if r := late.next(); !r.Canceled || r.CompactRevision != 10 || r.WatchId != 0 {
		t.Errorf("from a compacted revision: %v", r)
	}
}

// If this fails, watchers get events that they did not want, or too large ones.
func TestFiltersAndFragments(t *testing.T) {
	m := startMember(t)
	p := startProxy(t, m)
	w := openWatch(t, testContext(t), p)
	noPut := watchKey("k", 0)
	noPut.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}
	w.create(noPut)
	for range 12 {
		m.write("k", strings.Repeat("x", 500_000))
	}
	pieces := watchKey("k", 2)
	pieces.Fragment, pieces.PrevKv = true, true // not on the feed of the other one
	w.create(pieces)
	var sizes []string
	for seen := 0; seen < 12; {
		r := w.next()
		if r.WatchId != 1 {
			t.Fatalf("got %v for the watcher without puts", r)
		}
		seen += len(r.Events)
		sizes = append(sizes, fmt.Sprintf("%d/%t", len(r.Events), r.Fragment))
	}
	if got := strings.Join(sizes, " "); got != "4/true 4/true 2/false 2/false" {
		t.Errorf("pieces %s, want at most 4 events of half a megabyte in one", got)
	}
}

// If this fails, a proxy that is told to stop waits for its watchers.
func TestStopEndsWatches(t *testing.T) {
	m := startMember(t)
	w := func() *watching {
		p, err := New(t.Context(), parseFlags(t, "--endpoints", m.address), silentLog())
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		w := openWatch(t, testContext(t), p)
		w.create(watchKey("k", 0))
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		return w
	}()
	if r, err := w.Recv(); err == nil {
		t.Errorf("the stream goes on with %v", r)
	}
}
