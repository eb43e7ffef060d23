package grpcproxy

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/grpc/status"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// renewals has one renewer for each caller with an open keep-alive stream.
type renewals struct {
	*Proxy

	mu      sync.Mutex
	all     map[caller]*renewer // guarded by mu
	running sync.WaitGroup
}

// renewer renews leases over one stream to a member. Its goroutine lives while a
// client has a stream.
type renewer struct {
	*Proxy
	who     caller
	stop    context.CancelFunc
	wake    chan struct{} // holds a token when unsent is not empty
	clients int           // guarded by renewals.mu

	mu      sync.Mutex
	waiting map[int64][]chan renewal // guarded by mu: who wants an answer, by lease
	unsent  []int64                  // guarded by mu
}

// renewal is an answer, or why there is none.
type renewal struct {
	response *pb.LeaseKeepAliveResponse
	err      error
}

func newRenewals(p *Proxy) *renewals { return &renewals{Proxy: p, all: map[caller]*renewer{}} }

// acquire gives the caller's renewer, to be released when its stream ends.
func (rs *renewals) acquire(who caller) (r *renewer, release func()) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r = rs.all[who]
	if r == nil {
		ctx, stop := context.WithCancel(rs.ctx)
		r = &renewer{Proxy: rs.Proxy, who: who, stop: stop, wake: make(chan struct{}, 1), waiting: map[int64][]chan renewal{}}
		rs.all[who] = r
		rs.running.Go(func() { r.run(ctx) })
	}
	r.clients++
	return r, func() {
		rs.mu.Lock()
		defer rs.mu.Unlock()
		if r.clients--; r.clients == 0 {
			delete(rs.all, who)
			r.stop()
		}
	}
}

// streams is how many streams to members there may be.
func (rs *renewals) streams() int {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return len(rs.all)
}

// renew asks for a lease to be renewed, unless that is being asked already, and
// waits for the answer.
func (r *renewer) renew(ctx context.Context, id int64) (*pb.LeaseKeepAliveResponse, error) {
	answer := make(chan renewal, 1)
	r.mu.Lock()
	if len(r.waiting[id]) == 0 {
		r.unsent = append(r.unsent, id)
	}
	r.waiting[id] = append(r.waiting[id], answer)
	r.mu.Unlock()
	r.signal()
	select {
	case a := <-answer:
		return a.response, a.err
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	case <-r.ctx.Done():
		return nil, errStopping
	}
}

func (r *renewer) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run opens the stream, again and again when members fail.
func (r *renewer) run(ctx context.Context) {
	for pause := feedPauseFirst; ctx.Err() == nil; pause = min(2*pause, feedPauseMax) {
		if !r.waitForWork(ctx) {
			return
		}
		err := r.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if !isPassing(err) || r.who.leader && status.Convert(err).Message() == errNoLeader {
			r.fail(err)
			pause = feedPauseFirst
			continue
		}
		r.log.Debug("a keep-alive stream broke, opening it again", "error", err.Error())
		wait(ctx, pause)
	}
}

// waitForWork leaves members alone while there is nothing to ask.
func (r *renewer) waitForWork(ctx context.Context) bool {
	for {
		r.mu.Lock()
		work := len(r.waiting) > 0
		r.mu.Unlock()
		if work {
			return true
		}
		select {
		case <-r.wake:
		case <-ctx.Done():
			return false
		}
	}
}

// session is the time on one member; it ends with an error.
func (r *renewer) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var sending sync.WaitGroup
	defer sending.Wait()
	defer cancel()
	stream, err := r.client.Leases.LeaseKeepAlive(r.who.context(ctx), callOptions()...)
	if err != nil {
		return err
	}
	r.resendAll()
	sending.Go(func() { r.send(ctx, stream) })
	for {
		response, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, answer := range r.takeWaiting(response.ID) {
			answer <- renewal{response: response}
		}
	}
}

// resendAll asks a new member for all that no answer has come for.
func (r *renewer) resendAll() {
	r.mu.Lock()
	r.unsent = r.unsent[:0]
	for id := range r.waiting {
		r.unsent = append(r.unsent, id)
	}
	slices.Sort(r.unsent)
	r.mu.Unlock()
	r.signal()
}

func (r *renewer) send(ctx context.Context, stream pb.Lease_LeaseKeepAliveClient) {
	for {
		r.mu.Lock()
		ids := r.unsent
		r.unsent = nil
		r.mu.Unlock()
		for _, id := range ids {
			// An error of Send shows in Recv.
			_ = stream.Send(&pb.LeaseKeepAliveRequest{ID: id})
		}
		select {
		case <-r.wake:
		case <-ctx.Done():
			return
		}
	}
}

func (r *renewer) takeWaiting(id int64) []chan renewal {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.waiting[id]
	delete(r.waiting, id)
	return all
}

// fail tells all that there will be no answer.
func (r *renewer) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, all := range r.waiting {
		for _, answer := range all {
			answer <- renewal{err: err}
		}
		delete(r.waiting, id)
	}
}
