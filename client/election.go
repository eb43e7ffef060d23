package client

import (
	"context"
	"errors"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// Election makes one session at a time the leader. It is for one goroutine.
type Election struct{ place }

// Election is the election of the given name.
func (s *Session) Election(name string) *Election { return &Election{newPlace(s, name)} }

// Campaign waits to become leader and proclaims value.
func (e *Election) Campaign(ctx context.Context, value string) error {
	_, mine, err := e.join(ctx, value)
	if err != nil {
		return err
	}
	if mine != nil && string(mine.Value) != value {
		if err := e.Proclaim(ctx, value); err != nil {
			e.abandon()
			return err
		}
	}
	if err := e.await(ctx); err != nil {
		e.abandon()
		return err
	}
	return nil
}

// Proclaim changes the value of the leader.
func (e *Election) Proclaim(ctx context.Context, value string) error {
	r, err := e.s.c.Txn(ctx, Txn{
		If:   []*pb.Compare{Created(e.key, Equal, e.rev)},
		Then: Ops(PutRequest(e.key, value, Lease(e.s.lease))),
	})
	if err != nil {
		return err
	}
	if !r.Succeeded {
		e.rev = 0
		return ErrNotElected
	}
	e.header = r.Header
	return nil
}

// Resign lets the next one lead.
func (e *Election) Resign(ctx context.Context) error { return e.leave(ctx) }

// Key is the key that stands for the candidate.
func (e *Election) Key() string { return e.key }

// Revision is the create revision of the key, 0 when not a candidate.
func (e *Election) Revision() int64 { return e.rev }

// Header is that of the last answer.
func (e *Election) Header() *pb.ResponseHeader { return e.header }

// Leader reads who leads the election name: one pair, or ErrNobodyLeads.
func (c *Client) Leader(ctx context.Context, name string) (*pb.RangeResponse, error) {
	r, err := c.Get(ctx, name+"/", Prefix(), Limit(1), Sort(pb.RangeRequest_CREATE, pb.RangeRequest_ASCEND))
	if err == nil && len(r.Kvs) == 0 {
		err = ErrNobodyLeads
	}
	return r, err
}

// Observe calls visit with each leader of the election name, and with each
// value that it proclaims, until ctx ends or visit fails.
func (c *Client) Observe(ctx context.Context, name string, visit func(*pb.RangeResponse) error) error {
	for {
		r, err := c.Leader(ctx, name)
		if errors.Is(err, ErrNobodyLeads) {
			err = c.awaitCandidate(ctx, name, r.Header.GetRevision()+1)
			if err == nil {
				continue
			}
		}
		if err == nil {
			err = visit(r)
		}
		if err == nil {
			err = c.observeLeader(ctx, r, visit)
		}
		if err != nil {
			return err
		}
	}
}

// observeLeader reports what one leader proclaims, and returns when it is gone.
func (c *Client) observeLeader(ctx context.Context, r *pb.RangeResponse, visit func(*pb.RangeResponse) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := c.Watch(ctx, string(r.Kvs[0].Key), Revision(r.Header.GetRevision()+1))
	for {
		m, err := w.Next()
		if err != nil {
			return err
		}
		for _, e := range m.Events {
			if e.Type == mvccpb.Event_DELETE {
				return nil
			}
			if err := visit(&pb.RangeResponse{Header: m.Header, Kvs: []*mvccpb.KeyValue{e.Kv}, Count: 1}); err != nil {
				return err
			}
		}
	}
}

func (c *Client) awaitCandidate(ctx context.Context, name string, from int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := c.Watch(ctx, name+"/", Prefix(), Revision(from), NoDelete())
	for {
		if r, err := w.Next(); err != nil || len(r.Events) > 0 {
			return err
		}
	}
}
