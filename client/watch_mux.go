package client

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// watchMux carries any number of watchers over one stream and opens it again
// when it breaks.
//
//	add, resume ->  wanted  --create-->  pending  --created-->  live
//	                  ^                    |                      |
//	                  +---- stream broken, or the program is slow +
//
// Its goroutine lives while there are watchers.
type watchMux struct {
	c      *Client
	leader bool // the stream demands a leader

	mu       sync.Mutex
	running  bool           // guarded by mu
	commands []watchCommand // guarded by mu
	wake     chan struct{}  // holds a token when commands is not empty
}

type watchCommand struct {
	kind watchCommandKind
	w    *Watcher
}

type watchCommandKind int

const (
	watchAdd watchCommandKind = iota
	watchRemove
	watchResume
	watchProgress
)

func (m *watchMux) init(c *Client, leader bool) {
	m.c, m.leader, m.wake = c, leader, make(chan struct{}, 1)
}

func (m *watchMux) add(w *Watcher) {
	if m.c.ctx.Err() != nil {
		w.end(ErrClosed)
		return
	}
	m.command(watchCommand{watchAdd, w})
	stop := context.AfterFunc(w.ctx, func() { m.command(watchCommand{watchRemove, w}) })
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forget = stop
}

func (m *watchMux) resume(w *Watcher) { m.command(watchCommand{watchResume, w}) }

func (m *watchMux) requestProgress(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	m.command(watchCommand{kind: watchProgress})
	return nil
}

// command hands something to the goroutine of the mux, and starts it for the
// first watcher.
func (m *watchMux) command(c watchCommand) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.running && c.kind != watchAdd {
		return
	}
	m.commands = append(m.commands, c)
	if !m.running {
		m.running = true
		l := &watchLoop{mux: m, all: map[*Watcher]bool{}}
		m.c.wait.Go(l.run)
	}
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *watchMux) drain() []watchCommand {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.commands
	m.commands = nil
	return c
}

// retire ends the goroutine unless a command has just come in.
func (m *watchMux) retire() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.commands) > 0 {
		return false
	}
	m.running = false
	return true
}

// watchLoop is the state of the goroutine of a mux. All of it is owned by run.
type watchLoop struct {
	mux     *watchMux
	all     map[*Watcher]bool
	pending []*Watcher // created but not confirmed, in order of creation
	byID    map[int64]*Watcher
	lastID  int64
	asked   bool // for progress, and not passed on yet

	stream   pb.Watch_WatchClient // nil between streams
	cancel   context.CancelFunc
	incoming chan watchIncoming
	failures int
	token    string
}

type watchIncoming struct {
	stream pb.Watch_WatchClient
	r      *pb.WatchResponse
	err    error
}

func (l *watchLoop) run() {
	l.incoming = make(chan watchIncoming)
	defer l.drop()
	for {
		for _, c := range l.mux.drain() {
			l.obey(c)
		}
		if len(l.all) == 0 && l.mux.retire() {
			return
		}
		if l.stream == nil && len(l.all) > 0 {
			l.open()
		}
		select {
		case <-l.mux.wake:
		case in := <-l.incoming:
			l.receive(in)
		case <-l.mux.c.ctx.Done():
			l.endAll(ErrClosed)
			return
		}
	}
}

func (l *watchLoop) obey(c watchCommand) {
	switch c.kind {
	case watchAdd:
		l.all[c.w] = true
		l.create(c.w)
	case watchRemove:
		l.remove(c.w, c.w.ctx.Err())
	case watchResume:
		c.w.mu.Lock()
		again := c.w.behind && l.all[c.w]
		c.w.behind = false
		c.w.mu.Unlock()
		if again {
			l.create(c.w)
		}
	case watchProgress:
		l.asked = true
		l.ask()
	}
}

// ask passes a question for progress on, once every watcher stands: the member
// answers for those that it knows.
func (l *watchLoop) ask() {
	if !l.asked || l.stream == nil || len(l.pending) > 0 {
		return
	}
	l.asked = false
	l.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
}

// open starts a stream and creates every watcher on it. Waiting for the
// connection and for the backoff happens in the receiving goroutine.
func (l *watchLoop) open() {
	ctx, cancel := context.WithCancel(l.mux.c.ctx)
	if l.mux.leader {
		ctx = RequireLeader(ctx)
	}
	l.token = l.mux.c.tokens.get()
	l.cancel = cancel
	l.byID, l.pending = map[int64]*Watcher{}, nil
	stream, err := l.mux.c.openWatch(ctx)
	if err != nil {
		cancel()
		l.broken(err)
		return
	}
	l.stream = stream
	incoming, done := l.incoming, ctx.Done()
	l.mux.c.wait.Go(func() { receiveWatch(stream, incoming, done) })
	for w := range l.all {
		l.create(w)
	}
}

func (c *Client) openWatch(ctx context.Context) (pb.Watch_WatchClient, error) {
	return pb.NewWatchClient(c.conn).Watch(ctx)
}

func receiveWatch(stream pb.Watch_WatchClient, out chan<- watchIncoming, done <-chan struct{}) {
	for {
		r, err := stream.Recv()
		select {
		case out <- watchIncoming{stream, r, err}:
		case <-done:
			return
		}
		if err != nil {
			return
		}
	}
}

// drop leaves the present stream.
func (l *watchLoop) drop() {
	if l.cancel != nil {
		l.cancel()
	}
	l.stream, l.cancel = nil, nil
	for w := range l.all {
		w.id, w.live, w.partial = 0, false, nil
	}
}

func (l *watchLoop) create(w *Watcher) {
	if l.stream == nil {
		return
	}
	w.mu.Lock()
	behind := w.behind
	w.mu.Unlock()
	if behind {
		return
	}
	l.lastID++
	w.id, w.live, w.partial = l.lastID, false, nil
	l.byID[w.id] = w
	l.pending = append(l.pending, w)
	r := proto.Clone(w.request).(*pb.WatchCreateRequest) //nolint:errcheck // its own type
	r.WatchId, r.StartRevision = w.id, w.next
	l.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}})
}

// remove forgets a watcher and tells the member.
func (l *watchLoop) remove(w *Watcher, err error) {
	if !l.all[w] {
		return
	}
	delete(l.all, w)
	l.detach(w)
	w.end(err)
}

// detach cancels w on the member. Its place in pending stays, as the member
// still answers the creation.
func (l *watchLoop) detach(w *Watcher) {
	if w.id == 0 {
		return
	}
	delete(l.byID, w.id)
	l.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: w.id}}})
	w.id, w.live, w.partial = 0, false, nil
}

// send ignores the error: a broken stream shows in Recv.
func (l *watchLoop) send(r *pb.WatchRequest) {
	if l.stream != nil {
		_ = l.stream.Send(r)
	}
}

func (l *watchLoop) receive(in watchIncoming) {
	if in.stream != l.stream {
		return
	}
	if in.err != nil {
		l.broken(in.err)
		return
	}
	l.failures = 0
	r := in.r
	switch {
	case r.Created:
		l.created(r)
		l.ask()
	case r.WatchId == -1 && !r.Canceled:
		for w := range l.all {
			if w.live {
				l.deliver(w, r)
			}
		}
	default:
		if w := l.byID[r.WatchId]; w != nil {
			l.deliver(w, r)
		}
	}
}

// created handles the answer to the oldest pending creation.
func (l *watchLoop) created(r *pb.WatchResponse) {
	if len(l.pending) == 0 {
		return
	}
	w := l.pending[0]
	l.pending = l.pending[1:]
	switch {
	case !l.all[w] || w.id == 0: // removed meanwhile
	case r.Canceled:
		l.canceled(w, r)
	case r.WatchId == w.id:
		w.live = true
		if w.next == 0 {
			w.next = r.Header.GetRevision() + 1
		}
		if w.wantsCreated && !w.announced {
			w.announced = true
			w.offer(&WatchResponse{Header: r.Header, Created: true})
		}
	}
}

// canceled ends w, or asks for a new token when that was the reason.
func (l *watchLoop) canceled(w *Watcher, r *pb.WatchResponse) {
	var err error
	switch {
	case r.CompactRevision != 0:
		err = ErrCompacted
	case r.CancelReason != "":
		err = fromText(r.CancelReason)
	default:
		err = ErrFutureRevision
	}
	if l.mux.c.wantsToken(err) && l.failures < 2 {
		l.broken(err)
		return
	}
	delete(l.byID, w.id)
	delete(l.all, w)
	w.id, w.live = 0, false
	w.offer(&WatchResponse{
		Header: r.Header, CompactRevision: r.CompactRevision, Canceled: true, CancelReason: r.CancelReason,
		err: err,
	})
	w.end(err)
}

// deliver queues events or progress. Invariant: w.next is one more than the
// last revision queued or promised, so a resumed watcher neither repeats nor
// skips one.
func (l *watchLoop) deliver(w *Watcher, r *pb.WatchResponse) {
	if r.Canceled || r.CompactRevision != 0 {
		l.canceled(w, r)
		return
	}
	w.partial = append(w.partial, r.Events...)
	if r.Fragment {
		return
	}
	events := w.partial
	w.partial = nil
	progress := len(events) == 0
	for len(events) > 0 && events[0].Kv.GetModRevision() < w.next {
		events = events[1:]
	}
	if len(events) == 0 && !progress {
		return
	}
	if !w.offer(&WatchResponse{Header: r.Header, Events: events}) {
		l.detach(w)
		return
	}
	last := r.Header.GetRevision()
	if !progress {
		last = events[len(events)-1].Kv.GetModRevision()
	}
	w.next = max(w.next, last+1)
}

// broken leaves the stream and either opens another one soon or ends all.
func (l *watchLoop) broken(raw error) {
	l.drop()
	c := l.mux.c
	err := typed(c.ctx, raw)
	switch {
	case c.ctx.Err() != nil:
		l.endAll(ErrClosed)
		return
	case c.wantsToken(err):
		if fail := c.renew(c.ctx, l.token); fail != nil {
			l.endAll(err)
			return
		}
	case errors.Is(raw, io.EOF) || status.Code(raw) == codes.Unavailable || status.Code(raw) == codes.Internal:
	case errors.Is(err, ErrLearner) && len(c.Endpoints()) > 1:
	default:
		l.endAll(err)
		return
	}
	c.log.Warn("watch stream broken, opening another", "error", err.Error(), "watchers", len(l.all))
	l.failures++
	if l.failures > 1 {
		_ = pause(c.ctx, l.failures)
	}
}

func (l *watchLoop) endAll(err error) {
	for w := range l.all {
		w.end(err)
		delete(l.all, w)
	}
}
