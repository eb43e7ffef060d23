package api

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kvorum/kvorum/internal/crash"
	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// fragmentOverheadBytes is what a fragment may have beyond the request limit.
const fragmentOverheadBytes = 512 << 10

// invalidWatchID is the ID of an answer to a request that made no watcher.
const invalidWatchID = -1

// Watch serves etcdserverpb.Watch.
type Watch struct {
	pb.UnimplementedWatchServer
	*Services
}

// watchStream is one stream: the handler's goroutine sends what the store's
// stream gives out, a second one reads the client's requests.
type watchStream struct {
	*Services
	grpc   grpc.BidiStreamingServer[pb.WatchRequest, pb.WatchResponse]
	events *mvcc.WatchStream
	frame  eventsFrame // owner: the sending goroutine

	mu       sync.Mutex
	wishes   map[int64]watchWish // by watch ID
	ticker   *time.Timer         // nil until a watcher wants progress notices
	interval time.Duration
}

// watchWish is what a client wants of a watcher beyond its events.
type watchWish struct{ progress, fragment bool }

// Watch runs until the client or the member ends it.
func (w Watch) Watch(stream grpc.BidiStreamingServer[pb.WatchRequest, pb.WatchResponse]) error {
	ws := &watchStream{
		Services: w.Services, grpc: stream, events: w.store.Watch(mvcc.WatchStreamOptions{}),
		wishes: map[int64]watchWish{}, interval: w.limits.ProgressInterval,
	}
	defer ws.close()
	go ws.receive()
	return w.errors.Status(ws.send())
}

func (ws *watchStream) close() {
	ws.events.Close()
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.ticker != nil {
		ws.ticker.Stop()
	}
	ws.wishes = nil
}

// receive reads requests until the client closes its side or the stream ends;
// in both cases the sending side decides when the stream is over.
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
			ws.cancel(u.CancelRequest.WatchId)
		case *pb.WatchRequest_ProgressRequest:
			ws.events.Progress()
		}
		if err := ws.events.WaitRoom(ws.grpc.Context()); err != nil {
			return
		}
	}
}

func (ws *watchStream) create(r *pb.WatchCreateRequest) {
	spec := mvcc.WatchSpec{
		ID: r.WatchId, AutoID: r.WatchId == 0, Key: r.Key, End: r.RangeEnd,
		From: mvcc.Revision(r.StartRevision), PrevKV: r.PrevKv, Announce: true,
	}
	for _, f := range r.Filters {
		spec.NoPut = spec.NoPut || f == pb.WatchCreateRequest_NOPUT
		spec.NoDelete = spec.NoDelete || f == pb.WatchCreateRequest_NODELETE
	}
	if r.StartRevision < 0 { // told to anyone, permission or not
		ws.refuse(ws.store.Revision(), watchRefusal(mvcc.ErrCompacted))
		return
	}
	if ws.machine.AuthEnabled() {
		if _, err := ws.auth.admit(ws.grpc.Context(), pb.Watch_Watch_FullMethodName, r); err != nil {
			ws.refuse(ws.store.Revision(), err.Error())
			return
		}
	}
	// The lock makes the sender wait for the wish before it sends an event.
	ws.mu.Lock()
	defer ws.mu.Unlock()
	id, now, err := ws.events.Add(spec)
	if err != nil {
		ws.refuse(now, watchRefusal(err))
		return
	}
	ws.wishes[id] = watchWish{progress: r.ProgressNotify, fragment: r.Fragment}
	if r.ProgressNotify && ws.ticker == nil {
		ws.ticker = time.AfterFunc(ws.nextTick(), ws.tick)
	}
}

// refuse tells the client that a watcher was not made.
func (ws *watchStream) refuse(now mvcc.Revision, reason string) {
	ws.events.Reply(&pb.WatchResponse{
		Header: ws.header(now), WatchId: invalidWatchID, Created: true, Canceled: true, CancelReason: reason,
	})
}

// watchRefusal is the cancel_reason of a watcher that was not made.
func watchRefusal(err error) string {
	if errors.Is(err, mvcc.ErrCompacted) {
		return "etcdserver: " + mvcc.ErrCompacted.Error()
	}
	return err.Error()
}

// nextTick spreads the notices of many streams by a tenth of the interval.
func (ws *watchStream) nextTick() time.Duration {
	return ws.interval + time.Duration(rand.Int64N(int64(ws.interval)/10+1))
}

func (ws *watchStream) tick() {
	ws.events.Tick()
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.wishes != nil {
		ws.ticker.Reset(ws.nextTick())
	}
}

func (ws *watchStream) cancel(id int64) {
	if !ws.events.Cancel(id) {
		return
	}
	ws.mu.Lock()
	delete(ws.wishes, id)
	ws.mu.Unlock()
	ws.events.Reply(&pb.WatchResponse{Header: ws.current(), WatchId: id, Canceled: true})
}

func (ws *watchStream) wish(id int64) watchWish {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return ws.wishes[id]
}

// send gives the client what the store's stream gives out, in its order.
func (ws *watchStream) send() error {
	for {
		b, err := ws.events.Next(ws.grpc.Context())
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return ErrWatchCanceled
		}
		if err != nil {
			return err
		}
		began := time.Now()
		if err := ws.sendBatch(b); err != nil {
			return err
		}
		if ws.watched != nil {
			ws.watched(b.Kind, len(b.Events), time.Since(began))
		}
	}
}

func (ws *watchStream) sendBatch(b *mvcc.WatchBatch) error {
	crash.Here("beforeSendWatchResponse")
	switch b.Kind {
	case mvcc.WatchEvents:
		return ws.sendEvents(b)
	case mvcc.WatchCreated:
		return ws.grpc.Send(&pb.WatchResponse{Header: ws.header(b.Revision), WatchId: b.ID, Created: true})
	case mvcc.WatchCompacted:
		return ws.grpc.Send(&pb.WatchResponse{Header: ws.header(0), WatchId: b.ID, Canceled: true, CompactRevision: int64(b.CompactRevision)})
	case mvcc.WatchProgress:
		return ws.grpc.Send(&pb.WatchResponse{Header: ws.header(b.Revision), WatchId: invalidWatchID})
	case mvcc.WatchReply:
		return ws.grpc.Send(b.Reply.(*pb.WatchResponse))
	case mvcc.WatchIdle:
		return ws.sendIdle(b)
	}
	return nil
}

func (ws *watchStream) sendIdle(b *mvcc.WatchBatch) error {
	for _, id := range b.Idle {
		if !ws.wish(id).progress {
			continue
		}
		if err := ws.grpc.Send(&pb.WatchResponse{Header: ws.header(b.Revision), WatchId: id}); err != nil {
			return err
		}
	}
	return nil
}

// sendEvents sends a batch, in fragments if the watcher wants them and the
// batch is large.
func (ws *watchStream) sendEvents(b *mvcc.WatchBatch) error {
	f, limit := &ws.frame, ws.limits.RequestBytesMax+fragmentOverheadBytes
	f.begin(ws.header(b.Revision), b.ID, b.PrevKV)
	defer f.clear()
	events := b.Events
	if !ws.wish(b.ID).fragment {
		f.events = events
		return ws.grpc.SendMsg(f)
	}
	for len(events) > 0 {
		n, size := 0, 0
		for n < len(events) && (n == 0 || size+events[n].Size(b.PrevKV) <= limit) {
			size += events[n].Size(b.PrevKV)
			n++
		}
		f.events, f.fragment = events[:n], n < len(events)
		if err := ws.grpc.SendMsg(f); err != nil {
			return err
		}
		events = events[n:]
	}
	return nil
}

// The tags of etcdserverpb.WatchResponse that carry events.
const (
	watchTagHeader   = 1<<3 | 2
	watchTagID       = 2 << 3
	watchTagFragment = 7 << 3
	watchTagEvent    = 11<<3 | 2
)

// eventsFrame is a WatchResponse with events, put together from events that
// were encoded once for all watchers. gRPC encodes it before SendMsg returns,
// so a stream uses one frame again and again.
type eventsFrame struct {
	prefix   []byte // header and watch ID, encoded
	fragment bool
	events   []*mvcc.Event
	prevKV   bool
}

func (f *eventsFrame) begin(h *pb.ResponseHeader, id int64, prevKV bool) {
	size := h.SizeVT()
	p := append(f.prefix[:0], watchTagHeader)
	p = binary.AppendUvarint(p, uint64(size))
	n := len(p)
	p = slices.Grow(p, size)[:n+size]
	_, _ = h.MarshalToSizedBufferVT(p[n:]) // fails only for a buffer that is too small
	if id != 0 {
		p = binary.AppendUvarint(append(p, watchTagID), uint64(id))
	}
	f.prefix, f.prevKV, f.fragment = p, prevKV, false
}

// clear lets go of the events.
func (f *eventsFrame) clear() { f.events = nil }

// SizeVT is the size of the message on the wire.
func (f *eventsFrame) SizeVT() int {
	size := len(f.prefix)
	if f.fragment {
		size += 2
	}
	for _, e := range f.events {
		n := e.Size(f.prevKV)
		size += 1 + protowire.SizeVarint(uint64(n)) + n
	}
	return size
}

// sharedEventBytes is from where on an event is not copied into the frames of its
// watchers: all of them send the same bytes.
const sharedEventBytes = 4 << 10

// buffers implements encoded.
func (f *eventsFrame) buffers() mem.BufferSlice {
	pool := mem.DefaultBufferPool()
	buf := pool.Get(f.copiedSize())
	out := append((*buf)[:0], f.prefix...)
	if f.fragment {
		out = append(out, watchTagFragment, 1)
	}
	type share struct {
		at    int // in out: comes before what follows there
		event []byte
	}
	var shares []share
	for _, e := range f.events {
		b := e.Encoded(f.prevKV)
		out = binary.AppendUvarint(append(out, watchTagEvent), uint64(len(b)))
		if len(b) >= sharedEventBytes {
			shares = append(shares, share{len(out), b})
		} else {
			out = append(out, b...)
		}
	}
	*buf = out
	rest := mem.NewBuffer(buf, pool)
	if len(shares) == 0 {
		return mem.BufferSlice{rest}
	}
	all, done := make(mem.BufferSlice, 0, 2*len(shares)+1), 0
	for _, s := range shares {
		all = append(all, rest.Slice(done, s.at), mem.SliceBuffer(s.event))
		done = s.at
	}
	if done < len(out) {
		all = append(all, rest.Slice(done, len(out)))
	}
	rest.Free() // the slices keep it
	return all
}

// copiedSize is the part of SizeVT that buffers copies.
func (f *eventsFrame) copiedSize() int {
	size := f.SizeVT()
	for _, e := range f.events {
		if n := e.Size(f.prevKV); n >= sharedEventBytes {
			size -= n
		}
	}
	return size
}
