package client

import (
	"context"
	"strconv"
	"time"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// Session is a lease that is kept alive as long as the session is open. Locks
// and elections hang on it: who loses the lease loses them.
type Session struct {
	c     *Client
	lease int64
	stop  context.CancelFunc
	done  chan struct{}
}

// NewSession grants a lease of ttl seconds (60 when 0) and keeps it alive
// until Close, ctx ends, or it is lost.
func (c *Client) NewSession(ctx context.Context, ttl int64) (*Session, error) {
	if ttl <= 0 {
		ttl = 60
	}
	r, err := c.Grant(ctx, ttl)
	if err != nil {
		return nil, err
	}
	return c.SessionOf(ctx, r.ID), nil
}

// SessionOf is a session on a lease that exists.
func (c *Client) SessionOf(ctx context.Context, lease int64) *Session {
	ctx, stop := context.WithCancel(ctx)
	s := &Session{c: c, lease: lease, stop: stop, done: make(chan struct{})}
	renewals := c.KeepAlive(ctx, lease)
	c.wait.Go(func() {
		defer close(s.done)
		for range renewals { //nolint:revive // only the end matters
		}
	})
	return s
}

// Lease is the id of the lease.
func (s *Session) Lease() int64 { return s.lease }

// Done is closed when the lease is no longer kept.
func (s *Session) Done() <-chan struct{} { return s.done }

// Close gives up the lease, and with it all locks and elections.
func (s *Session) Close() error {
	s.stop()
	<-s.done
	ctx, cancel := context.WithTimeout(s.c.ctx, 10*time.Second)
	defer cancel()
	_, err := s.c.Revoke(ctx, s.lease)
	return err
}

// place is a key in a queue of sessions: name/<lease>. The oldest owns.
type place struct {
	s      *Session
	prefix string // name + "/"
	key    string
	rev    int64 // create revision; 0 = not in the queue
	header *pb.ResponseHeader
}

func newPlace(s *Session, name string) place {
	prefix := name + "/"
	return place{s: s, prefix: prefix, key: prefix + strconv.FormatInt(s.lease, 16)}
}

// join puts the key into the queue unless it is there, and returns the owner
// and, when it was there, its pair.
func (p *place) join(ctx context.Context, value string) (owner, mine *mvccpb.KeyValue, err error) {
	oldest := GetRequest(p.prefix, Prefix(), Limit(1), Sort(pb.RangeRequest_CREATE, pb.RangeRequest_ASCEND))
	r, err := p.s.c.Txn(ctx, Txn{
		If:   []*pb.Compare{Created(p.key, Equal, 0)},
		Then: Ops(PutRequest(p.key, value, Lease(p.s.lease)), oldest),
		Else: Ops(GetRequest(p.key), oldest),
	})
	if err != nil {
		return nil, nil, err
	}
	p.header, p.rev = r.Header, r.Header.GetRevision()
	if !r.Succeeded {
		mine = r.Responses[0].GetResponseRange().Kvs[0]
		p.rev = mine.CreateRevision
	}
	if kvs := r.Responses[1].GetResponseRange().GetKvs(); len(kvs) > 0 {
		owner = kvs[0]
	}
	return owner, mine, nil
}

// owns reports whether owner is this place, or nobody.
func (p *place) owns(owner *mvccpb.KeyValue) bool {
	return owner == nil || owner.CreateRevision == p.rev
}

// await waits until all older keys are gone. It follows one key at a time, the
// next older, so that a release wakes one waiter only.
func (p *place) await(ctx context.Context) error {
	for {
		r, err := p.s.c.Get(ctx, p.prefix, Prefix(), Limit(1), CreatedBetween(0, p.rev-1),
			Sort(pb.RangeRequest_CREATE, pb.RangeRequest_DESCEND))
		if err != nil {
			return err
		}
		if len(r.Kvs) == 0 {
			p.header = r.Header
			return p.check(ctx)
		}
		if err := p.s.c.awaitDelete(ctx, string(r.Kvs[0].Key), r.Header.GetRevision()+1); err != nil {
			return err
		}
	}
}

// check makes sure that the own key outlived the wait.
func (p *place) check(ctx context.Context) error {
	r, err := p.s.c.Get(ctx, p.key)
	if err != nil {
		return err
	}
	if len(r.Kvs) == 0 || r.Kvs[0].CreateRevision != p.rev {
		return ErrSessionExpired
	}
	p.header = r.Header
	return nil
}

// leave removes the key, also when the wait was canceled.
func (p *place) leave(ctx context.Context) error {
	if p.rev == 0 {
		return nil
	}
	r, err := p.s.c.Txn(ctx, Txn{
		If:   []*pb.Compare{Created(p.key, Equal, p.rev)},
		Then: Ops(DeleteRequest(p.key)),
	})
	if err != nil {
		return err
	}
	p.header, p.rev = r.Header, 0
	return nil
}

// abandon leaves after ctx ended.
func (p *place) abandon() {
	ctx, cancel := context.WithTimeout(p.s.c.ctx, 5*time.Second)
	defer cancel()
	if err := p.leave(ctx); err != nil {
		p.s.c.log.Warn("left a key behind until its lease expires", "key", p.key, "error", err.Error())
	}
}

func (c *Client) awaitDelete(ctx context.Context, key string, from int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := c.Watch(ctx, key, Revision(from))
	for {
		r, err := w.Next()
		if err != nil {
			return err
		}
		for _, e := range r.Events {
			if e.Type == mvccpb.Event_DELETE {
				return nil
			}
		}
	}
}
