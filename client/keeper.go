package client

import (
	"context"
	"sync"
	"time"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// firstPatience is how long a lease of unknown length is held for alive before
// a member has answered for the first time.
const firstPatience = 10 * time.Second

// keeper renews all leases of a client over one stream. Its goroutine lives
// while there are leases to keep.
type keeper struct {
	c *Client

	mu      sync.Mutex
	running bool          // guarded by mu
	fresh   []*kept       // guarded by mu: not yet seen by the goroutine
	wake    chan struct{} // holds a token when fresh or a context changed
}

// kept is one call of KeepAlive.
type kept struct {
	ctx context.Context
	id  int64
	out chan *pb.LeaseKeepAliveResponse
}

func (k *keeper) init(c *Client) { k.c, k.wake = c, make(chan struct{}, 1) }

func (k *keeper) keep(ctx context.Context, id int64) <-chan *pb.LeaseKeepAliveResponse {
	one := &kept{ctx: ctx, id: id, out: make(chan *pb.LeaseKeepAliveResponse, 16)}
	if k.c.ctx.Err() != nil || ctx.Err() != nil {
		close(one.out)
		return one.out
	}
	k.mu.Lock()
	k.fresh = append(k.fresh, one)
	if !k.running {
		k.running = true
		l := &keepLoop{k: k, leases: map[int64]*keptLease{}, incoming: make(chan keepIncoming)}
		k.c.wait.Go(l.run)
	}
	k.mu.Unlock()
	k.signal()
	context.AfterFunc(ctx, k.signal)
	return one.out
}

func (k *keeper) signal() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// take gives the new leases to the goroutine; stop tells it to end, which it
// may when it has none.
func (k *keeper) take(idle bool) (fresh []*kept, stop bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	fresh, k.fresh = k.fresh, nil
	if len(fresh) == 0 && idle {
		k.running = false
		return nil, true
	}
	return fresh, false
}

// keptLease is a lease and all who want it kept.
type keptLease struct {
	calls    []*kept
	sendAt   time.Time
	deadline time.Time // past it without an answer the lease is lost
}

// keepLoop is the state of the goroutine. All of it is owned by run.
type keepLoop struct {
	k        *keeper
	leases   map[int64]*keptLease
	stream   pb.Lease_LeaseKeepAliveClient // nil between streams
	opening  bool
	cancel   context.CancelFunc
	incoming chan keepIncoming
	failures int
	openAt   time.Time // not before
}

// keepIncoming is an answer, an end, or a stream that was opened.
type keepIncoming struct {
	opened pb.Lease_LeaseKeepAliveClient
	r      *pb.LeaseKeepAliveResponse
	err    error
}

func (l *keepLoop) run() {
	defer l.drop()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		l.forgetEnded()
		fresh, stop := l.k.take(len(l.leases) == 0)
		if stop {
			return
		}
		now := time.Now()
		for _, one := range fresh {
			l.add(one, now)
		}
		l.expire(now)
		l.open(now)
		timer.Reset(l.sendDue(now))
		select {
		case <-l.k.wake:
		case <-timer.C:
		case in := <-l.incoming:
			l.receive(in, time.Now())
		case <-l.k.c.ctx.Done():
			l.closeAll()
			return
		}
	}
}

func (l *keepLoop) add(one *kept, now time.Time) {
	lease := l.leases[one.id]
	if lease == nil {
		lease = &keptLease{deadline: now.Add(firstPatience)}
		l.leases[one.id] = lease
	}
	lease.calls = append(lease.calls, one)
	lease.sendAt = now
}

// forgetEnded closes the channels of calls whose context ended.
func (l *keepLoop) forgetEnded() {
	for id, lease := range l.leases {
		rest := lease.calls[:0]
		for _, one := range lease.calls {
			if one.ctx.Err() == nil {
				rest = append(rest, one)
			} else {
				close(one.out)
			}
		}
		if lease.calls = rest; len(rest) == 0 {
			delete(l.leases, id)
		}
	}
}

func (l *keepLoop) lose(id int64) {
	for _, one := range l.leases[id].calls {
		close(one.out)
	}
	delete(l.leases, id)
}

func (l *keepLoop) closeAll() {
	for id := range l.leases {
		l.lose(id)
	}
	fresh, _ := l.k.take(false)
	for _, one := range fresh {
		close(one.out)
	}
}

// expire gives up leases whose time has passed without an answer.
func (l *keepLoop) expire(now time.Time) {
	for id, lease := range l.leases {
		if now.After(lease.deadline) {
			l.lose(id)
		}
	}
}

// sendDue sends what is due and returns how long there is nothing to do.
func (l *keepLoop) sendDue(now time.Time) time.Duration {
	wait := time.Hour
	for id, lease := range l.leases {
		if l.stream != nil && !lease.sendAt.After(now) {
			// An error of Send shows in Recv.
			_ = l.stream.Send(&pb.LeaseKeepAliveRequest{ID: id})
			lease.sendAt = now.Add(500 * time.Millisecond) // unless answered
		}
		wait = min(wait, lease.deadline.Sub(now)+time.Millisecond)
		if l.stream != nil {
			wait = min(wait, lease.sendAt.Sub(now))
		}
	}
	if l.stream == nil && !l.opening && len(l.leases) > 0 {
		wait = min(wait, l.openAt.Sub(now))
	}
	return max(wait, time.Millisecond)
}

// open starts a stream in a goroutine of its own, as it waits for a connection
// and leases must be able to expire meanwhile.
func (l *keepLoop) open(now time.Time) {
	if l.stream != nil || l.opening || len(l.leases) == 0 || now.Before(l.openAt) {
		return
	}
	l.opening = true
	ctx, cancel := context.WithCancel(l.k.c.ctx)
	l.cancel = cancel
	c, incoming := l.k.c, l.incoming
	c.wait.Go(func() { receiveKeepAlive(ctx, c, incoming) })
}

func receiveKeepAlive(ctx context.Context, c *Client, out chan<- keepIncoming) {
	tell := func(in keepIncoming) bool {
		select {
		case out <- in:
			return in.err == nil
		case <-ctx.Done():
			return false
		}
	}
	token := c.tokens.get()
	fail := func(err error) {
		if c.wantsToken(typed(ctx, err)) {
			// A failure to renew it shows in the next attempt.
			_ = c.renew(ctx, token)
		}
		tell(keepIncoming{err: err})
	}
	stream, err := c.Leases.LeaseKeepAlive(ctx)
	if err != nil {
		fail(err)
		return
	}
	for ok := tell(keepIncoming{opened: stream}); ok; {
		r, err := stream.Recv()
		if err != nil {
			fail(err)
			return
		}
		ok = tell(keepIncoming{r: r})
	}
}

func (l *keepLoop) drop() {
	if l.cancel != nil {
		l.cancel()
	}
	l.stream, l.cancel, l.opening = nil, nil, false
}

func (l *keepLoop) receive(in keepIncoming, now time.Time) {
	switch {
	case in.err != nil:
		l.drop()
		l.failures++
		l.openAt = now.Add(min(retryDelay*time.Duration(l.failures), retrySlowest))
		l.k.c.log.Warn("lease stream broken, opening another", "error", in.err.Error(), "leases", len(l.leases))
	case in.opened != nil:
		l.stream, l.opening = in.opened, false
		for _, lease := range l.leases {
			lease.sendAt = now
		}
	default:
		l.failures = 0
		l.renewed(in.r, now)
	}
}

func (l *keepLoop) renewed(r *pb.LeaseKeepAliveResponse, now time.Time) {
	lease := l.leases[r.ID]
	if lease == nil {
		return
	}
	if r.TTL <= 0 {
		l.lose(r.ID)
		return
	}
	ttl := time.Duration(r.TTL) * time.Second
	lease.sendAt, lease.deadline = now.Add(ttl/3), now.Add(ttl)
	for _, one := range lease.calls {
		select {
		case one.out <- r:
		default:
		}
	}
}
