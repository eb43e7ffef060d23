package api

import (
	"bytes"
	"context"
	"strconv"

	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// sessionTTL is the life, in seconds, of a lease that is granted to a client
// that brings none. Nobody keeps it alive but the client.
const sessionTTL = 60

// place is a place in a queue, which is what locks and elections are made of:
// keys under name + "/", one for each lease that waits, of which the one that
// was created first holds. All clients of etcd queue like this, those that do
// it by themselves too.
type place struct {
	name  []byte
	lease int64
	value []byte

	key     []byte
	created int64 // the revision at which key was created
}

// queueOf is the folder of a queue.
func queueOf(name []byte) []byte { return append(bytes.Clone(name), '/') }

// ownKey is name/lease, the lease in hexadecimal.
func (p *place) ownKey() []byte { return strconv.AppendInt(queueOf(p.name), p.lease, 16) }

// inQueue is a request for all keys of a queue.
func inQueue(name []byte) *pb.RangeRequest {
	from := queueOf(name)
	end := bytes.Clone(from)
	end[len(end)-1]++ // '/' has a successor
	return &pb.RangeRequest{Key: from, RangeEnd: end}
}

// firstOf asks for the holder.
func firstOf(name []byte) *pb.RangeRequest {
	r := inQueue(name)
	r.SortTarget, r.SortOrder, r.Limit = pb.RangeRequest_CREATE, pb.RangeRequest_ASCEND, 1
	return r
}

// before asks for the last one that is before p.
func (p *place) before() *pb.RangeRequest {
	r := inQueue(p.name)
	r.MaxCreateRevision = p.created - 1
	r.SortTarget, r.SortOrder, r.Limit = pb.RangeRequest_CREATE, pb.RangeRequest_DESCEND, 1
	return r
}

func opRange(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

// createdAt holds while key is the one that was created at rev; 0: not at all.
func createdAt(key []byte, rev int64) *pb.Compare {
	return &pb.Compare{
		Key: key, Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL,
		TargetUnion: &pb.Compare_CreateRevision{CreateRevision: rev},
	}
}

// joinTxn makes the key unless it is there, and tells who holds.
func (p *place) joinTxn() *pb.TxnRequest {
	put := &pb.PutRequest{Key: p.key, Value: p.value, Lease: p.lease}
	return &pb.TxnRequest{
		Compare: []*pb.Compare{createdAt(p.key, 0)},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: put}}, opRange(firstOf(p.name))},
		Failure: []*pb.RequestOp{opRange(&pb.RangeRequest{Key: p.key}), opRange(firstOf(p.name))},
	}
}

// leaveTxn deletes the key if it still is the one created at rev.
func leaveTxn(key []byte, rev int64) *pb.TxnRequest {
	remove := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key}}}
	return &pb.TxnRequest{Compare: []*pb.Compare{createdAt(key, rev)}, Success: []*pb.RequestOp{remove}}
}

// inner runs a request of another service for the client of a lock or an
// election, authorised as if the client had made it.
func inner[Q, A any](ctx context.Context, s *Services, method string, r Q, call func(context.Context, Q) (A, error)) (A, error) {
	var answer A
	response, err := s.auth.unary(ctx, method, r, func(ctx context.Context, _ any) (any, error) { return call(ctx, r) })
	if err != nil {
		return answer, err
	}
	return response.(A), nil
}

func (s *Services) innerTxn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	return inner(ctx, s, pb.KV_Txn_FullMethodName, r, KV{Services: s}.Txn)
}

func (s *Services) innerRange(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	return inner(ctx, s, pb.KV_Range_FullMethodName, r, KV{Services: s}.Range)
}

// join takes a place at the end of the queue, or finds the one that the lease
// has. header is of the moment; held says that nobody is before it; old is the
// key as it was if the lease had one.
func (s *Services) join(ctx context.Context, p *place) (header *pb.ResponseHeader, held bool, old *mvccpb.KeyValue, err error) {
	if p.lease == 0 {
		grant := &pb.LeaseGrantRequest{TTL: sessionTTL}
		lease, err := inner(ctx, s, pb.Lease_LeaseGrant_FullMethodName, grant, Lease{Services: s}.LeaseGrant)
		if err != nil {
			return nil, false, nil, err
		}
		p.lease = lease.ID
	}
	p.key = p.ownKey()
	response, err := s.innerTxn(ctx, p.joinTxn())
	if err != nil {
		return nil, false, nil, err
	}
	p.created = response.Header.Revision
	if !response.Succeeded {
		old = response.Responses[0].GetResponseRange().Kvs[0]
		p.created = old.CreateRevision
	}
	holder := response.Responses[1].GetResponseRange().Kvs
	held = len(holder) == 0 || holder[0].CreateRevision == p.created
	return response.Header, held, old, nil
}

// await waits until nobody is before p and gives the header of the read that
// found it so. It watches its predecessor and its own key, so that of a long
// queue only one wakes up when the holder goes. The error is lost if the place
// itself goes; a client that stops waiting gives its place up.
func (s *Services) await(ctx context.Context, p *place, lost error) (*pb.ResponseHeader, error) {
	for {
		look := &pb.TxnRequest{Success: []*pb.RequestOp{opRange(&pb.RangeRequest{Key: p.key}), opRange(p.before())}}
		response, err := s.innerTxn(ctx, look)
		if err != nil {
			return nil, s.giveUp(ctx, p, err)
		}
		own, before := response.Responses[0].GetResponseRange().Kvs, response.Responses[1].GetResponseRange().Kvs
		switch {
		case len(own) == 0 || own[0].CreateRevision != p.created:
			return nil, s.errors.Status(lost)
		case len(before) == 0:
			return response.Header, nil
		}
		from := mvcc.Revision(response.Header.Revision + 1)
		gone := func(key []byte) mvcc.WatchSpec { return mvcc.WatchSpec{Key: key, From: from, NoPut: true} }
		if _, err := s.waitChange(ctx, gone(before[0].Key), gone(p.key)); err != nil {
			return nil, s.giveUp(ctx, p, err)
		}
	}
}

// giveUp leaves the queue for a client that no longer waits, and returns the
// status of why. If the key cannot be deleted now it goes with its lease.
func (s *Services) giveUp(ctx context.Context, p *place, why error) error {
	if ctx.Err() != nil {
		_, _ = s.innerTxn(context.WithoutCancel(ctx), leaveTxn(p.key, p.created))
	}
	return s.errors.Status(why)
}

// waitChange waits for the first event that one of the specs names. The event is
// nil if history was compacted before it could be told: the caller looks again.
func (s *Services) waitChange(ctx context.Context, specs ...mvcc.WatchSpec) (*mvcc.Event, error) {
	stream := s.store.Watch(mvcc.WatchStreamOptions{})
	defer stream.Close()
	for _, spec := range specs {
		spec.AutoID = true
		if _, _, err := stream.Add(spec); err != nil {
			return nil, err
		}
	}
	for {
		b, err := stream.Next(ctx)
		if err != nil {
			return nil, err
		}
		switch b.Kind {
		case mvcc.WatchEvents:
			return b.Events[0], nil
		case mvcc.WatchCompacted:
			return nil, nil
		}
	}
}
