package api

import (
	"bytes"
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/v3electionpb"
)

// Election serves v3electionpb.Election. The leader is whoever is first in the
// queue; what it proclaims is the value of its key.
type Election struct {
	v3electionpb.UnimplementedElectionServer
	*Services
}

// Campaign waits until the client's lease leads. The header is of the moment at
// which the client has joined. A client that stops waiting leaves the queue.
func (e Election) Campaign(ctx context.Context, r *v3electionpb.CampaignRequest) (*v3electionpb.CampaignResponse, error) {
	p := &place{name: r.Name, lease: r.Lease, value: r.Value}
	header, held, old, err := e.join(ctx, p)
	if err != nil {
		return nil, clientError(err)
	}
	leader := &v3electionpb.LeaderKey{Name: r.Name, Key: p.key, Rev: p.created, Lease: p.lease}
	if old != nil && !bytes.Equal(old.Value, r.Value) {
		if _, err := e.proclaim(ctx, leader, r.Value); err != nil {
			return nil, clientError(err)
		}
	}
	if !held {
		if _, err := e.await(ctx, p, ErrElectionSession); err != nil {
			return nil, clientError(err)
		}
	}
	return &v3electionpb.CampaignResponse{Header: header, Leader: leader}, nil
}

// Proclaim replaces what the leader says.
func (e Election) Proclaim(ctx context.Context, r *v3electionpb.ProclaimRequest) (*v3electionpb.ProclaimResponse, error) {
	if err := checkProclaim(r); err != nil {
		return nil, clientError(e.errors.Status(err))
	}
	header, err := e.proclaim(ctx, r.Leader, r.Value)
	if err != nil {
		return nil, clientError(err)
	}
	return &v3electionpb.ProclaimResponse{Header: header}, nil
}

func (e Election) proclaim(ctx context.Context, leader *v3electionpb.LeaderKey, value []byte) (*pb.ResponseHeader, error) {
	response, err := e.innerTxn(ctx, proclaimTxn(leader, value))
	if err != nil {
		return nil, err
	}
	if !response.Succeeded {
		return nil, e.errors.Status(ErrElectionNotLeader)
	}
	return response.Header, nil
}

// proclaimTxn puts the value if the key still is the one of this leadership.
func proclaimTxn(leader *v3electionpb.LeaderKey, value []byte) *pb.TxnRequest {
	put := &pb.PutRequest{Key: leader.Key, Value: value, Lease: leader.Lease}
	return &pb.TxnRequest{
		Compare: []*pb.Compare{createdAt(leader.Key, leader.Rev)},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: put}}},
	}
}

// Resign gives leadership up; it is no error not to have it.
func (e Election) Resign(ctx context.Context, r *v3electionpb.ResignRequest) (*v3electionpb.ResignResponse, error) {
	if err := checkResign(r); err != nil {
		return nil, clientError(e.errors.Status(err))
	}
	response, err := e.innerTxn(ctx, leaveTxn(r.Leader.Key, r.Leader.Rev))
	if err != nil {
		return nil, clientError(err)
	}
	return &v3electionpb.ResignResponse{Header: response.Header}, nil
}

// Leader tells who leads.
func (e Election) Leader(ctx context.Context, r *v3electionpb.LeaderRequest) (*v3electionpb.LeaderResponse, error) {
	response, err := e.innerRange(ctx, firstOf(r.Name))
	if err != nil {
		return nil, clientError(err)
	}
	if len(response.Kvs) == 0 {
		return nil, e.errors.Status(ErrElectionNoLeader)
	}
	return &v3electionpb.LeaderResponse{Header: response.Header, Kv: response.Kvs[0]}, nil
}

// Observe tells who leads, and then every other leader and everything that a
// leader proclaims, in order and without gaps unless history is compacted.
func (e Election) Observe(r *v3electionpb.LeaderRequest, stream grpc.ServerStreamingServer[v3electionpb.LeaderResponse]) error {
	ctx := stream.Context()
	// 0: as it is now.
	for rev := int64(0); ; {
		look := firstOf(r.Name)
		look.Revision = rev
		response, err := e.innerRange(ctx, look)
		if rev != 0 && isCompacted(err) {
			rev = 0
			continue
		}
		if err != nil {
			return clientError(err)
		}
		if rev == 0 {
			rev = response.Header.Revision
		}
		changes := mvcc.WatchSpec{Key: look.Key, End: look.RangeEnd, NoDelete: true}
		if len(response.Kvs) > 0 {
			// All that can change who leads and what it says.
			changes = mvcc.WatchSpec{Key: response.Kvs[0].Key}
			response.Header.Revision = rev // of what is told, not of the telling
			if err := stream.Send(&v3electionpb.LeaderResponse{Header: response.Header, Kv: response.Kvs[0]}); err != nil {
				return err
			}
		}
		changes.From = mvcc.Revision(rev + 1)
		if rev, err = e.changedAt(ctx, changes); err != nil {
			return clientError(e.errors.Status(err))
		}
	}
}

// changedAt waits for the first event and gives its revision; 0 if history was
// compacted before it could be told.
func (s *Services) changedAt(ctx context.Context, spec mvcc.WatchSpec) (int64, error) {
	event, err := s.waitChange(ctx, spec)
	if event == nil {
		return 0, err
	}
	return int64(event.Rev()), nil
}

// isCompacted tells whether a read at a revision that has been came too late.
func isCompacted(err error) bool { return status.Code(err) == codes.OutOfRange }

func checkProclaim(r *v3electionpb.ProclaimRequest) error { return checkLeaderKey(r.Leader) }

func checkResign(r *v3electionpb.ResignRequest) error { return checkLeaderKey(r.Leader) }

func checkLeaderKey(leader *v3electionpb.LeaderKey) error {
	switch {
	case leader == nil:
		return ErrLeaderField
	case len(leader.Key) == 0:
		return ErrKeyEmpty
	}
	return nil
}
