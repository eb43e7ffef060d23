package linear

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// silenceMax is how long a watcher waits for something before it goes to another member.
const silenceMax = 1200 * time.Millisecond

// watcher watches from one member after the other and goes on where it was.
type watcher struct {
	*workload
	id     int
	random *rand.Rand
	spec   Session // Whole, NoDelete, Prev
	wander bool    // each session watches another key from another revision
	next   int64   // the revision to start from
	seen   atomic.Int64
	final  *atomic.Int64 // not 0: end when everything up to there was heard
}

// run watches until everything up to final was heard, or ctx ends.
func (w *watcher) run(ctx context.Context) {
	member := w.random.IntN(len(w.endpoints))
	for ctx.Err() == nil && !w.done() {
		w.session(ctx, member)
		member = w.random.IntN(len(w.endpoints))
		wait(ctx, time.Duration(w.random.IntN(30))*time.Millisecond)
	}
}

func (w *watcher) done() bool {
	final := w.final.Load()
	return final != 0 && w.seen.Load() >= final
}

// session is one stream with one watcher. It ends by an error, by silence, or by chance.
func (w *watcher) session(parent context.Context, member int) {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	s := w.spec
	s.Watcher, s.Member, s.From = w.id, member, w.next
	switch {
	case w.wander:
		s.Key, s.From = w.anyKey()
	case w.id > 0 && w.random.IntN(2) == 0:
		s.From = max(1, w.next-w.random.Int64N(100)) // hears some of it again, as history
	}
	stream, err := pb.NewWatchClient(w.endpoints[member].conn).Watch(ctx)
	if err != nil {
		return
	}
	if err := stream.Send(createOf(&s)); err != nil {
		return
	}
	defer w.recorder.AddSession(&s)
	silence := time.AfterFunc(silenceMax, cancel)
	defer silence.Stop()
	for left := 5 + w.random.IntN(150); left > 0 && !w.done(); left-- {
		a, err := stream.Recv()
		if err != nil {
			return
		}
		silence.Reset(silenceMax)
		if !w.take(&s, a) {
			return
		}
		if w.random.IntN(10) == 0 || w.final.Load() != 0 {
			w.askProgress(stream)
		}
	}
}

// anyKey draws one of the keys seen lately, and a revision of the recent past.
func (w *watcher) anyKey() (key string, from int64) {
	_, newest := w.last("")
	return keyAt(w.recorder.Now(), w.random.IntN(keysAtOnce)), max(1, newest-w.random.Int64N(120))
}

func (w *watcher) askProgress(stream grpc.BidiStreamingClient[pb.WatchRequest, pb.WatchResponse]) {
	// A failed send ends the stream: Recv tells.
	_ = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
}

// take records an answer; false: the watcher is over.
func (w *watcher) take(s *Session, a *pb.WatchResponse) bool {
	if a.Canceled {
		s.CompactRevision = a.CompactRevision
		w.next = max(w.next, a.CompactRevision)
		return false
	}
	if a.Created {
		return true
	}
	n := Notice{At: w.recorder.Now(), Revision: a.Header.GetRevision(), Progress: len(a.Events) == 0}
	for _, e := range a.Events {
		n.Events = append(n.Events, eventOf(e))
		w.next = max(w.next, e.Kv.ModRevision+1)
	}
	if n.Progress {
		// Whoever goes on from here relies on the promise.
		w.next = max(w.next, n.Revision+1)
	}
	s.Notices = append(s.Notices, n)
	w.seen.Store(w.next - 1)
	return true
}

func eventOf(e *mvccpb.Event) Event {
	out := Event{Key: string(e.Kv.Key), Revision: e.Kv.ModRevision, Delete: e.Type == mvccpb.Event_DELETE, HasPrev: e.PrevKv != nil, Prev: kvOf(e.PrevKv)}
	if !out.Delete {
		out.KV = kvOf(e.Kv)
	}
	return out
}

func createOf(s *Session) *pb.WatchRequest {
	c := &pb.WatchCreateRequest{StartRevision: s.From, PrevKv: s.Prev, ProgressNotify: true}
	c.Key, c.RangeEnd = []byte(s.Key), nil
	if s.Whole {
		c.Key, c.RangeEnd = []byte{0}, []byte{0}
	}
	if s.NoDelete {
		c.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}
	}
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: c}}
}
