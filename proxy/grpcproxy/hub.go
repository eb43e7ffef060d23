package grpcproxy

import (
	"context"
	"sync"

	"google.golang.org/protobuf/proto"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// hub knows all watchers of all clients and the feeds that they are on.
//
// One lock guards all of it; it is never held across I/O.
type hub struct {
	*Proxy

	mu       sync.Mutex
	shared   map[feedKey]*feed // guarded by mu: where new watchers are put
	head     pb.ResponseHeader // guarded by mu: as a member answered last
	watchers int               // guarded by mu
	feeds    int               // guarded by mu
	saved    int               // guarded by mu: events given out beyond those received
	running  sync.WaitGroup    // of feeds
}

// feedKey is what watchers on one feed have in common. Filters are not: they are
// for each watcher.
type feedKey struct {
	key, end string
	prevKV   bool
	who      caller
}

func newHub(p *Proxy) *hub { return &hub{Proxy: p, shared: map[feedKey]*feed{}} }

// header is one of the cluster with another revision; mu is held.
func (h *hub) header(revision int64) *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: h.head.ClusterId, MemberId: h.head.MemberId, RaftTerm: h.head.RaftTerm, Revision: revision}
}

// heard remembers the newest header; mu is held.
func (h *hub) heard(header *pb.ResponseHeader) {
	if header.GetRevision() >= h.head.Revision {
		proto.Reset(&h.head)
		proto.Merge(&h.head, header)
	}
}

// add makes a watcher and puts it on a feed. now is a header that was read after
// the client's request.
//
// A shared feed has given out all up to feed.at, so a watcher fits if it wants
// nothing older. One that asked for no revision wants what comes after its
// creation, and that is the later one of now and feed.at.
func (h *hub) add(ws *watchStream, key feedKey, r *pb.WatchCreateRequest, now *pb.ResponseHeader) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ws.watchers == nil {
		return // the stream is over
	}
	h.heard(now)
	id, ok := ws.chooseID(r.WatchId)
	if !ok {
		h.refuseLocked(ws, errDuplicateID)
		return
	}
	w := &watcher{stream: ws, id: id, start: r.StartRevision, base: now.Revision, next: r.StartRevision}
	w.setFilters(r)
	shared := h.shared[key]
	if w.start == 0 {
		if shared != nil {
			w.base = max(w.base, shared.at)
		}
		w.next = w.base + 1
	}
	ws.watchers[id] = w
	h.watchers++
	if shared != nil && w.next > shared.at {
		shared.take(w)
		return
	}
	f := h.open(key, w.next-1)
	f.exact = w.start != 0
	f.settleAt = now.Revision
	if w.next > now.Revision+1 {
		f.settleAt = w.next // must have seen an event to be of use to others
	}
	f.take(w)
	f.settle()
}

// open starts a feed of what comes after a revision; mu is held.
func (h *hub) open(key feedKey, at int64) *feed {
	ctx, stop := context.WithCancel(h.ctx)
	f := &feed{hub: h, key: key, at: at, stop: stop, watchers: map[*watcher]bool{}, poke: make(chan struct{}, 1)}
	h.feeds++
	h.running.Go(func() { f.run(ctx) })
	return f
}

// chooseID gives the ID that was asked for, or the next free one.
func (ws *watchStream) chooseID(asked int64) (id int64, ok bool) {
	if asked != 0 {
		return asked, ws.watchers[asked] == nil
	}
	for ws.watchers[ws.nextID] != nil {
		ws.nextID++
	}
	ws.nextID++
	return ws.nextID - 1, true
}

// refuse tells the client that a watcher was not made.
func (h *hub) refuse(ws *watchStream, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refuseLocked(ws, reason)
}

func (h *hub) refuseLocked(ws *watchStream, reason string) {
	ws.push(&pb.WatchResponse{Header: h.header(h.head.Revision), WatchId: invalidWatchID, Created: true, Canceled: true, CancelReason: reason})
}

// end ends a client's stream with an error.
func (h *hub) end(ws *watchStream, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.endLocked(ws, err)
}

func (h *hub) endLocked(ws *watchStream, err error) {
	if ws.ended == nil {
		ws.ended = err
	}
	select {
	case ws.wake <- struct{}{}:
	default:
	}
}

// cancel is the client's wish to end a watcher. An unknown ID has no answer.
func (h *hub) cancel(ws *watchStream, id int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := ws.watchers[id]
	if w == nil {
		return
	}
	w.announce()
	h.drop(w)
	ws.push(&pb.WatchResponse{Header: h.header(h.head.Revision), WatchId: id, Canceled: true})
	ws.answerProgress()
}

// drop takes a watcher off its feed and its stream; mu is held.
func (h *hub) drop(w *watcher) {
	delete(w.stream.watchers, w.id)
	h.watchers--
	w.feed.lose(w)
}

// leave ends all watchers of a stream.
func (h *hub) leave(ws *watchStream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range ws.watchers {
		h.drop(w)
	}
	ws.watchers = nil
}

// askProgress passes a client's question on to the members, one for each feed
// that it is on.
func (h *hub) askProgress(ws *watchStream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ws.asked = true
	for _, w := range ws.watchers {
		w.known = 0
		select {
		case w.feed.poke <- struct{}{}:
		default:
		}
	}
}

// answerProgress answers when all feeds have; with no watcher there is no answer.
// hub.mu is held.
func (ws *watchStream) answerProgress() {
	if !ws.asked || len(ws.watchers) == 0 {
		return
	}
	oldest := int64(0)
	for _, w := range ws.watchers {
		if w.known == 0 {
			return
		}
		if oldest == 0 || w.known < oldest {
			oldest = w.known
		}
	}
	ws.asked = false
	ws.push(&pb.WatchResponse{Header: ws.hub.header(oldest), WatchId: invalidWatchID})
}
