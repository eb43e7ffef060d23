package grpcproxy

import (
	"bytes"
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// leaseService serves etcdserverpb.Lease.
type leaseService struct {
	pb.UnimplementedLeaseServer
	*Proxy
}

// LeaseGrant makes a lease.
func (s leaseService) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	return s.client.Leases.LeaseGrant(outgoing(ctx), r, callOptions()...)
}

// LeaseRevoke ends a lease. Nobody here knows its keys, so all that was read is
// forgotten.
func (s leaseService) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	response, err := s.client.Leases.LeaseRevoke(outgoing(ctx), r, callOptions()...)
	s.cache.forget(everything())
	if err == nil {
		s.note(response.Header)
	}
	return response, err
}

// LeaseTimeToLive tells what a lease has left, and those of its keys that are in
// the namespace.
func (s leaseService) LeaseTimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	response, err := s.client.Leases.LeaseTimeToLive(outgoing(ctx), r, callOptions()...)
	if err != nil {
		return nil, err
	}
	mine := response.Keys[:0]
	for _, key := range response.Keys {
		if bytes.HasPrefix(key, s.ns) {
			mine = append(mine, key[len(s.ns):])
		}
	}
	response.Keys = mine
	return response, nil
}

// LeaseLeases lists all leases.
func (s leaseService) LeaseLeases(ctx context.Context, r *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	return s.client.Leases.LeaseLeases(outgoing(ctx), r, callOptions()...)
}

// LeaseKeepAlive renews the lease of every request, together with those of all
// clients with the same credentials.
func (s leaseService) LeaseKeepAlive(stream grpc.BidiStreamingServer[pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse]) error {
	renewer, release := s.renewals.acquire(callerOf(stream.Context()))
	defer release()
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		response, err := renewer.renew(stream.Context(), r.ID)
		if err != nil {
			return err
		}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
}
