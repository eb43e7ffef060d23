package grpcproxy

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// feed is one watch on a member. Its goroutine reads it, gives its events to its
// watchers, and opens it again where it was when the member fails.
//
//	          caught up, none shared
//	+---------+ ------------------> +--------+
//	| private |                     | shared | <- new watchers
//	+---------+ <------------------ +--------+
//	 one watcher   watcher is slow    any number
//	      \                              ^
//	       `---- caught up: joins the ---'
//
// A shared feed waits for nobody. A private one waits for its watcher, and so the
// member holds what the client does not take.
//
// Invariant: each watcher on it has been given, or did not want, all events up to
// at.
type feed struct {
	hub  *hub
	key  feedKey
	stop context.CancelFunc
	poke chan struct{} // holds a token when a client asks for progress

	// Guarded by hub.mu:
	watchers map[*watcher]bool
	at       int64 // events up to here have been given out
	settleAt int64 // from here on a private feed may join the shared one
	exact    bool  // ask for at+1, not for at: at may be compacted
	live     bool  // a member has confirmed it
	shared   bool
	closed   bool
}

// take adds a watcher; hub.mu is held.
func (f *feed) take(w *watcher) {
	w.feed = f
	f.watchers[w] = true
	if f.live {
		w.announce()
	}
}

// lose removes a watcher; a feed without any is closed. hub.mu is held.
func (f *feed) lose(w *watcher) {
	delete(f.watchers, w)
	if len(f.watchers) == 0 {
		f.close()
	}
}

func (f *feed) close() {
	if f.closed {
		return
	}
	f.closed = true
	f.hub.feeds--
	if f.shared {
		delete(f.hub.shared, f.key)
	}
	f.stop()
}

// settle makes a private feed that has caught up the shared one, or moves its
// watcher to that. hub.mu is held.
func (f *feed) settle() {
	if f.shared || f.closed || f.at < f.settleAt {
		return
	}
	other := f.hub.shared[f.key]
	if other == nil {
		f.shared = true
		f.hub.shared[f.key] = f
		return
	}
	if other.at > f.at {
		return
	}
	for w := range f.watchers {
		delete(f.watchers, w)
		other.take(w)
	}
	f.close()
}

// detach moves a slow watcher from the shared feed to one of its own.
// hub.mu is held.
func (f *feed) detach(w *watcher) {
	own := f.hub.open(f.key, w.next-1)
	own.exact, own.settleAt = true, f.at
	delete(f.watchers, w)
	own.take(w)
	if len(f.watchers) == 0 {
		f.close()
	}
}

// The pause between attempts to open a feed.
const (
	feedPauseFirst = 20 * time.Millisecond
	feedPauseMax   = time.Second
)

func (f *feed) run(ctx context.Context) {
	for pause := feedPauseFirst; ; pause = min(2*pause, feedPauseMax) {
		err := f.session(ctx, &pause)
		if ctx.Err() != nil {
			return
		}
		if !isPassing(err) || f.key.who.leader && status.Convert(err).Message() == errNoLeader {
			f.fail(err)
			return
		}
		f.hub.log.Debug("a watch broke, opening it again", "error", err.Error())
		wait(ctx, pause)
	}
}

const errNoLeader = "etcdserver: no leader"

// isPassing tells of failures that another member may not have.
func isPassing(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.Internal, codes.Canceled, codes.Unknown:
		return true
	}
	return false
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// session is the time on one member; it ends with an error.
func (f *feed) session(ctx context.Context, pause *time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := f.hub.watch.Watch(f.key.who.context(ctx), callOptions()...)
	if err != nil {
		return err
	}
	create := &pb.WatchCreateRequest{
		Key: []byte(f.key.key), RangeEnd: []byte(f.key.end), PrevKv: f.key.prevKV, ProgressNotify: true, StartRevision: f.startRevision(),
	}
	// An error of Send shows in Recv.
	_ = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}})
	f.hub.running.Go(func() { f.forwardPokes(ctx, stream) })
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		*pause = feedPauseFirst
		if again, err := f.hear(ctx, r); again || err != nil {
			return err
		}
	}
}

// startRevision is where the member begins. A member answers progress requests
// only from watchers that do not wait for a revision to come, so the newest one
// that was given out is asked for again, and left out.
func (f *feed) startRevision() int64 {
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	if f.exact {
		return f.at + 1
	}
	return max(f.at, 1)
}

func (f *feed) forwardPokes(ctx context.Context, stream pb.Watch_WatchClient) {
	for {
		select {
		case <-f.poke:
			_ = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
		case <-ctx.Done():
			return
		}
	}
}

// hear takes what the member says. again asks for another session.
func (f *feed) hear(ctx context.Context, r *pb.WatchResponse) (again bool, err error) {
	if len(r.Events) > 0 {
		f.hub.ns.stripEvents(r.Events)
		return false, f.giveOut(ctx, r)
	}
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	f.hub.heard(r.Header)
	switch {
	case r.Canceled:
		if r.CompactRevision == f.at+1 && !f.exact {
			f.exact = true // what was asked for again is gone, what comes next is not
			return true, errPassing
		}
		f.canceled(r)
		return true, nil
	case r.Created:
		f.live = true
		for w := range f.watchers {
			w.announce()
		}
	default:
		f.progressed(r)
	}
	return false, nil
}

// errPassing makes run open another session.
var errPassing = status.Error(codes.Unavailable, "the watch starts again")

// giveOut gives events to all watchers. Those of the shared feed that are full
// get a feed of their own; a private feed waits for its watcher.
func (f *feed) giveOut(ctx context.Context, r *pb.WatchResponse) error {
	h := f.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	h.heard(r.Header)
	events := slices.DeleteFunc(r.Events, func(e *mvccpb.Event) bool { return e.Kv.ModRevision <= f.at })
	if len(events) == 0 {
		return nil
	}
	h.saved += (len(f.watchers) - 1) * len(events)
	for w := range f.watchers {
		for !w.give(r.Header, events) {
			if f.shared {
				f.detach(w)
				break
			}
			room := w.stream.room
			h.mu.Unlock()
			select {
			case <-room:
			case <-ctx.Done():
			}
			h.mu.Lock()
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	f.at = events[len(events)-1].Kv.ModRevision
	f.exact = f.exact && f.at < f.settleAt
	f.settle()
	return nil
}

// progressed takes a notice that all up to a revision has been given out. One
// that a client has asked for has no watcher's ID. hub.mu is held.
func (f *feed) progressed(r *pb.WatchResponse) {
	now := r.Header.GetRevision()
	f.at = max(f.at, now)
	for w := range f.watchers {
		if now < w.start || now < w.next-1 {
			continue
		}
		w.next = max(w.next, now+1)
		switch {
		case r.WatchId == invalidWatchID:
			w.known = now
			w.stream.answerProgress()
		case w.progress:
			w.stream.push(&pb.WatchResponse{Header: r.Header, WatchId: w.id})
		}
	}
	f.settle()
}

// canceled passes on that the member has ended the watch. hub.mu is held.
func (f *feed) canceled(r *pb.WatchResponse) {
	for w := range f.watchers {
		out := &pb.WatchResponse{Header: r.Header, WatchId: w.id, Canceled: true, CompactRevision: r.CompactRevision, CancelReason: r.CancelReason}
		if !w.created && r.CompactRevision == 0 {
			out.WatchId, out.Created = invalidWatchID, true
		} else {
			w.announce()
		}
		w.created = true
		w.stream.push(out)
		f.hub.drop(w)
		w.stream.answerProgress()
	}
	f.close()
}

// fail ends the streams of all watchers, whose clients decide what to do.
func (f *feed) fail(err error) {
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	for w := range f.watchers {
		f.hub.endLocked(w.stream, err)
		f.hub.drop(w)
	}
	f.close()
}
