package api

import (
	"context"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server/state"
)

// Cluster serves etcdserverpb.Cluster. Its headers never carry a revision.
type Cluster struct {
	pb.UnimplementedClusterServer
	*Services
}

// MemberList lists the members in ID order; a linearizable list waits for the
// read barrier.
func (c Cluster) MemberList(ctx context.Context, r *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	if r.Linearizable {
		if err := c.member.ReadBarrier(ctx); err != nil {
			return nil, c.errors.Status(err)
		}
	}
	return &pb.MemberListResponse{Header: c.header(0), Members: c.members()}, nil
}

// MemberAdd adds a voter or a learner and answers with its ID.
func (c Cluster) MemberAdd(ctx context.Context, r *pb.MemberAddRequest) (*pb.MemberAddResponse, error) {
	if err := checkMemberAdd(r); err != nil {
		return nil, c.errors.Status(err)
	}
	added, err := c.member.AddMember(ctx, r.PeerURLs, r.IsLearner)
	if err != nil {
		return nil, c.errors.Status(err)
	}
	return &pb.MemberAddResponse{Header: c.header(0), Member: wireMember(added), Members: c.members()}, nil
}

// MemberRemove removes a member.
func (c Cluster) MemberRemove(ctx context.Context, r *pb.MemberRemoveRequest) (*pb.MemberRemoveResponse, error) {
	if err := c.member.RemoveMember(ctx, r.ID); err != nil {
		return nil, c.errors.Status(err)
	}
	return &pb.MemberRemoveResponse{Header: c.header(0), Members: c.members()}, nil
}

// MemberUpdate replaces the peer URLs of a member.
func (c Cluster) MemberUpdate(ctx context.Context, r *pb.MemberUpdateRequest) (*pb.MemberUpdateResponse, error) {
	if err := c.member.UpdateMember(ctx, r.ID, r.PeerURLs); err != nil {
		return nil, c.errors.Status(err)
	}
	return &pb.MemberUpdateResponse{Header: c.header(0), Members: c.members()}, nil
}

// MemberPromote makes a learner a voter.
func (c Cluster) MemberPromote(ctx context.Context, r *pb.MemberPromoteRequest) (*pb.MemberPromoteResponse, error) {
	if err := c.member.PromoteMember(ctx, r.ID); err != nil {
		return nil, c.errors.Status(err)
	}
	return &pb.MemberPromoteResponse{Header: c.header(0), Members: c.members()}, nil
}

func (c Cluster) members() []*pb.Member {
	members := c.machine.Members()
	out := make([]*pb.Member, len(members))
	for i, m := range members {
		out[i] = wireMember(m)
	}
	return out
}

func wireMember(m state.Member) *pb.Member {
	return &pb.Member{ID: uint64(m.ID), Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, IsLearner: m.IsLearner}
}
