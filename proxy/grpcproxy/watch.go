package grpcproxy

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

const (
	// queueMax is how many responses wait for a slow client. Past it its watchers
	// read on their own (see feed).
	queueMax = 128
	// fragmentBytesMax is where a watcher that wants fragments gets them.
	fragmentBytesMax = 2 << 20
	// invalidWatchID is the ID of an answer to a request that made no watcher.
	invalidWatchID = -1

	errDuplicateID = "mvcc: duplicate watch ID provided on the WatchStream"
)

// watchService serves etcdserverpb.Watch.
type watchService struct {
	pb.UnimplementedWatchServer
	*Proxy
}

// watchStream is one client's stream: the handler's goroutine sends what is
// queued, a second one reads requests.
type watchStream struct {
	hub  *hub
	grpc grpc.BidiStreamingServer[pb.WatchRequest, pb.WatchResponse]
	who  caller
	wake chan struct{} // holds a token when there is something to send

	queue    []*pb.WatchResponse // guarded by hub.mu
	room     chan struct{}       // guarded by hub.mu; closed when the queue has been taken
	watchers map[int64]*watcher  // guarded by hub.mu
	nextID   int64               // guarded by hub.mu
	asked    bool                // guarded by hub.mu: a progress request is open
	ended    error               // guarded by hub.mu: why the stream is over
}

// watcher is one of a client's. All of it is guarded by hub.mu.
type watcher struct {
	stream *watchStream
	id     int64
	feed   *feed

	start   int64 // as the client asked
	base    int64 // revision at which it was made, when it asked for none
	next    int64 // the first revision that it has not been given
	created bool  // the client was told
	known   int64 // all up to here was given, said a member since the client asked; 0 is no answer

	noPut, noDelete, progress, fragment bool
}

// Watch runs until the client, the member or the proxy ends it.
func (s watchService) Watch(stream grpc.BidiStreamingServer[pb.WatchRequest, pb.WatchResponse]) error {
	ws := &watchStream{
		hub: s.hub, grpc: stream, who: callerOf(stream.Context()), wake: make(chan struct{}, 1),
		room: make(chan struct{}), watchers: map[int64]*watcher{},
	}
	defer s.hub.leave(ws)
	go ws.receive()
	return ws.send()
}

// receive reads requests until the client closes its side or the stream ends.
func (ws *watchStream) receive() {
	for {
		r, err := ws.grpc.Recv()
		if err != nil {
			return
		}
		switch u := r.RequestUnion.(type) {
		case *pb.WatchRequest_CreateRequest:
			ws.create(u.CreateRequest)
		case *pb.WatchRequest_CancelRequest:
			ws.hub.cancel(ws, u.CancelRequest.WatchId)
		case *pb.WatchRequest_ProgressRequest:
			ws.hub.askProgress(ws)
		}
		if !ws.waitRoom() {
			return
		}
	}
}

// waitRoom bounds what a client can make the proxy remember by asking without
// reading. It is false when the stream is over.
func (ws *watchStream) waitRoom() bool {
	ws.hub.mu.Lock()
	full, room := len(ws.queue) >= 2*queueMax, ws.room
	ws.hub.mu.Unlock()
	if !full {
		return true
	}
	select {
	case <-room:
		return true
	case <-ws.grpc.Context().Done():
		return false
	}
}

// create makes a watcher. A count of its range comes first: it says, with the
// client's credentials, whether the client may read it, and which revision is now.
func (ws *watchStream) create(r *pb.WatchCreateRequest) {
	h := ws.hub
	if len(r.Key) == 0 {
		r.Key = []byte{0}
	}
	key := feedKey{key: string(h.ns.key(r.Key)), end: string(h.ns.end(r.RangeEnd)), prevKV: r.PrevKv, who: ws.who}
	look := &pb.RangeRequest{Key: []byte(key.key), RangeEnd: []byte(key.end), Limit: 1, KeysOnly: true, Serializable: r.StartRevision != 0}
	now, err := h.client.KV.Range(outgoing(ws.grpc.Context()), look, callOptions()...)
	switch {
	case err == nil:
		h.add(ws, key, r, now.Header)
	case ws.grpc.Context().Err() != nil:
	case isRefusal(err):
		h.refuse(ws, status.Convert(err).Err().Error()) // as members write it
	default:
		h.end(ws, err)
	}
}

// isRefusal tells an error about the client from one about the cluster.
func isRefusal(err error) bool {
	switch status.Code(err) {
	case codes.PermissionDenied, codes.Unauthenticated, codes.InvalidArgument:
		return true
	}
	return false
}

// send gives the client what is queued.
func (ws *watchStream) send() error {
	ctx := ws.grpc.Context()
	for {
		batch, err := ws.take()
		for _, r := range batch {
			if err := ws.grpc.Send(r); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		select {
		case <-ws.wake:
		case <-ctx.Done():
			return status.FromContextError(context.Cause(ctx)).Err()
		case <-ws.hub.ctx.Done():
			return errStopping
		}
	}
}

func (ws *watchStream) take() ([]*pb.WatchResponse, error) {
	ws.hub.mu.Lock()
	defer ws.hub.mu.Unlock()
	batch := ws.queue
	ws.queue = nil
	if len(batch) > 0 {
		close(ws.room)
		ws.room = make(chan struct{})
	}
	return batch, ws.ended
}

// push queues a response; hub.mu is held.
func (ws *watchStream) push(r *pb.WatchResponse) {
	ws.queue = append(ws.queue, r)
	select {
	case ws.wake <- struct{}{}:
	default:
	}
}

// announce tells the client that its watcher exists; hub.mu is held.
func (w *watcher) announce() {
	if w.created {
		return
	}
	w.created = true
	w.stream.push(&pb.WatchResponse{Header: w.stream.hub.header(w.base), WatchId: w.id, Created: true})
}

// give queues the events that the watcher has not been given, unless the client
// is slow. hub.mu is held.
func (w *watcher) give(header *pb.ResponseHeader, events []*mvccpb.Event) bool {
	if len(w.stream.queue) >= queueMax {
		return false
	}
	last := events[len(events)-1].Kv.ModRevision
	if last < w.next {
		return true
	}
	mine := events
	if w.noPut || w.noDelete || events[0].Kv.ModRevision < w.next {
		mine = nil
		for _, e := range events {
			if e.Kv.ModRevision >= w.next && w.wants(e) {
				mine = append(mine, e)
			}
		}
	}
	w.next = last + 1
	if len(mine) > 0 {
		w.pushEvents(header, mine)
	}
	return true
}

func (w *watcher) wants(e *mvccpb.Event) bool {
	if e.Type == mvccpb.Event_PUT {
		return !w.noPut
	}
	return !w.noDelete
}

// pushEvents queues events, in fragments if they are wanted and needed.
func (w *watcher) pushEvents(header *pb.ResponseHeader, events []*mvccpb.Event) {
	for len(events) > 0 {
		n := len(events)
		if w.fragment {
			size := 0
			for n = 0; n < len(events) && (n == 0 || size+events[n].SizeVT() <= fragmentBytesMax); n++ {
				size += events[n].SizeVT()
			}
		}
		w.stream.push(&pb.WatchResponse{Header: header, WatchId: w.id, Events: events[:n], Fragment: n < len(events)})
		events = events[n:]
	}
}

// setFilters takes over what the client wants beyond the events of a range.
func (w *watcher) setFilters(r *pb.WatchCreateRequest) {
	w.progress, w.fragment = r.ProgressNotify, r.Fragment
	w.noPut = slices.Contains(r.Filters, pb.WatchCreateRequest_NOPUT)
	w.noDelete = slices.Contains(r.Filters, pb.WatchCreateRequest_NODELETE)
}
