package client

import (
	"context"
	"sync"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// queueMax is how many responses a watcher holds for a program that does not
// take them. Past it the watcher is canceled on the member and resumed where
// it was when the program has caught up.
const queueMax = 128

type watchSettings struct {
	from          int64
	progress      bool
	created       bool
	noPut, noDrop bool
	fragment      bool
}

// ProgressNotify asks for a response without events now and then, which tells
// how far the watcher is.
func ProgressNotify() Option { return func(s *settings) { s.watch.progress = true } }

// CreatedNotify makes Next return the answer to the creation, first and once.
func CreatedNotify() Option { return func(s *settings) { s.watch.created = true } }

// NoPut leaves out puts.
func NoPut() Option { return func(s *settings) { s.watch.noPut = true } }

// NoDelete leaves out deletes.
func NoDelete() Option { return func(s *settings) { s.watch.noDrop = true } }

// Fragment lets the member split very large responses; the client puts them
// together again.
func Fragment() Option { return func(s *settings) { s.watch.fragment = true } }

// WatchResponse is what happened to the keys of a watcher.
type WatchResponse struct {
	Header *pb.ResponseHeader
	Events []*mvccpb.Event
	// CompactRevision is set when the watcher ended because what it wanted to
	// see next is gone; watch again from it at the earliest.
	CompactRevision int64
	Canceled        bool
	Created         bool
	CancelReason    string

	err error
}

// IsProgress: no events, but all up to Header.Revision have been delivered.
func (r *WatchResponse) IsProgress() bool {
	return len(r.Events) == 0 && !r.Canceled && !r.Created && r.CompactRevision == 0
}

// Watcher follows a key or a range. Next may be called from one goroutine at a
// time.
type Watcher struct {
	mux          *watchMux
	ctx          context.Context
	request      *pb.WatchCreateRequest
	wantsCreated bool

	// Owned by the goroutine of the mux.
	id        int64 // on the present stream; 0 = not there
	next      int64 // the first revision not yet queued; 0 = from now on
	live      bool  // the member confirmed the creation
	announced bool  // the Created response was queued
	partial   []*mvccpb.Event

	mu     sync.Mutex
	queue  []*WatchResponse // guarded by mu
	behind bool             // guarded by mu: responses were refused, to be resumed
	err    error            // guarded by mu: why it ended; the queue is still to be read
	forget func() bool      // guarded by mu: stops waiting for the end of ctx
	wake   chan struct{}    // holds a token when queue or err changed
}

// Watch follows a key or a range until ctx ends. It does not wait for the
// member; use CreatedNotify, or a Revision, to be sure from when it counts.
func (c *Client) Watch(ctx context.Context, key string, options ...Option) *Watcher {
	s := apply(options)
	from, end := s.bounds(key)
	r := &pb.WatchCreateRequest{
		Key: from, RangeEnd: end, PrevKv: s.prevKV, ProgressNotify: s.watch.progress, Fragment: s.watch.fragment,
	}
	if s.watch.noPut {
		r.Filters = append(r.Filters, pb.WatchCreateRequest_NOPUT)
	}
	if s.watch.noDrop {
		r.Filters = append(r.Filters, pb.WatchCreateRequest_NODELETE)
	}
	mux := &c.watches[0]
	if ctx.Value(leaderKey{}) != nil || c.cfg.RequireLeader {
		mux = &c.watches[1]
	}
	w := &Watcher{
		mux: mux, ctx: ctx, request: r, next: s.watch.from, wantsCreated: s.watch.created, wake: make(chan struct{}, 1),
	}
	mux.add(w)
	return w
}

// RequestProgress asks the member to say how far the watchers are; the answer
// comes to all of them through Next, if all are up to date.
func (c *Client) RequestProgress(ctx context.Context) error {
	mux := &c.watches[0]
	if ctx.Value(leaderKey{}) != nil || c.cfg.RequireLeader {
		mux = &c.watches[1]
	}
	return mux.requestProgress(ctx)
}

// Next waits for the next response. After an error there are no more; a
// response may come together with it (Canceled is true then). The error is
// ErrCompacted when history was lost, and the context's when that ended.
func (w *Watcher) Next() (*WatchResponse, error) {
	for {
		r, err, done := w.take()
		if done {
			return r, err
		}
		select {
		case <-w.wake:
		case <-w.ctx.Done():
			if r, err, done = w.take(); done {
				return r, err
			}
			return nil, w.ctx.Err()
		case <-w.mux.c.ctx.Done():
			return nil, ErrClosed
		}
	}
}

// take is the non-waiting half of Next.
func (w *Watcher) take() (r *WatchResponse, err error, done bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		return nil, w.err, w.err != nil
	}
	r = w.queue[0]
	w.queue = w.queue[1:]
	if len(w.queue) == 0 && w.behind {
		w.mux.resume(w)
	}
	if r.Canceled {
		return r, r.err, true
	}
	return r, nil, true
}

// offer queues a response and reports whether there was room.
func (w *Watcher) offer(r *WatchResponse) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) >= queueMax && !r.Canceled {
		w.behind = true
		return false
	}
	w.queue = append(w.queue, r)
	w.signal()
	return true
}

func (w *Watcher) end(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	if w.forget != nil {
		w.forget()
	}
	w.signal()
}

func (w *Watcher) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
