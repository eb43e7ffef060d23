package api

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server/state"
)

// Lease serves etcdserverpb.Lease.
type Lease struct {
	pb.UnimplementedLeaseServer
	*Services
}

// LeaseGrant makes a lease; ID 0 lets the server choose one.
func (l Lease) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	if err := l.member.CheckQuota(leaseCostBytes); err != nil {
		return nil, l.errors.Status(err)
	}
	// Decided before it is proposed, so that every member grants the same.
	r.TTL = max(r.TTL, l.limits.LeaseTTLMin)
	if r.ID == 0 {
		r.ID = l.member.NextLeaseID()
	}
	response, err := propose[*pb.LeaseGrantResponse](ctx, l.Services, &pb.InternalRaftRequest{LeaseGrant: r})
	if err != nil {
		return nil, err
	}
	response.Header = l.own(response.Header)
	return response, nil
}

// LeaseRevoke ends a lease and deletes its keys.
func (l Lease) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	response, err := propose[*pb.LeaseRevokeResponse](ctx, l.Services, &pb.InternalRaftRequest{LeaseRevoke: r})
	if err != nil {
		return nil, err
	}
	response.Header = l.own(response.Header)
	return response, nil
}

// LeaseKeepAlive renews the lease of every request on the stream. A lease that
// is gone is answered with TTL 0 and the stream goes on.
func (l Lease) LeaseKeepAlive(stream grpc.BidiStreamingServer[pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse]) error {
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		response := &pb.LeaseKeepAliveResponse{Header: l.current(), ID: r.ID}
		response.TTL, err = l.member.RenewLease(stream.Context(), r.ID)
		if errors.Is(err, state.ErrLeaseNotFound) {
			response.TTL, err = 0, nil
		}
		if err != nil {
			return l.errors.Status(err)
		}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
}

// LeaseTimeToLive tells what a lease has left. A lease that is gone has TTL -1.
func (l Lease) LeaseTimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	response, err := l.member.LeaseTimeToLive(ctx, r.ID, r.Keys)
	if errors.Is(err, state.ErrLeaseNotFound) {
		response, err = &pb.LeaseTimeToLiveResponse{ID: r.ID, TTL: -1}, nil
	}
	if err == nil {
		// The leader may know of keys that this member has not heard of yet.
		err = l.auth.mayRead(ctx, response.Keys)
	}
	if err != nil {
		return nil, l.errors.Status(err)
	}
	response.Header = l.current()
	return response, nil
}

// LeaseLeases lists all leases that this member knows; the leader in the order of their ends.
func (l Lease) LeaseLeases(context.Context, *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	leases := l.machine.Leases()
	l.member.SortLeases(leases)
	response := &pb.LeaseLeasesResponse{Header: l.current(), Leases: make([]*pb.LeaseStatus, len(leases))}
	for i, lease := range leases {
		response.Leases[i] = &pb.LeaseStatus{ID: int64(lease.ID)}
	}
	return response, nil
}
