package client

import (
	"context"
	"errors"
	"io"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// Grant makes a lease of ttl seconds.
func (c *Client) Grant(ctx context.Context, ttl int64) (*pb.LeaseGrantResponse, error) {
	return c.Leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: ttl})
}

// Revoke ends a lease and deletes its keys.
func (c *Client) Revoke(ctx context.Context, id int64) (*pb.LeaseRevokeResponse, error) {
	return c.Leases.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id})
}

// TimeToLive tells the seconds left: -1 for a lease that is gone.
func (c *Client) TimeToLive(ctx context.Context, id int64, keys bool) (*pb.LeaseTimeToLiveResponse, error) {
	return c.Leases.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id, Keys: keys})
}

// KeepAliveOnce renews a lease once. A lease that is gone is ErrLeaseNotFound.
func (c *Client) KeepAliveOnce(ctx context.Context, id int64) (*pb.LeaseKeepAliveResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var answer *pb.LeaseKeepAliveResponse
	err := c.reopen(ctx, func() (bool, error) {
		s, err := c.Leases.LeaseKeepAlive(ctx)
		if err != nil {
			return false, err
		}
		if err := s.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		if answer, err = s.Recv(); err != nil {
			return false, err
		}
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	if answer.GetTTL() <= 0 {
		return nil, ErrLeaseNotFound
	}
	return answer, nil
}

// KeepAlive renews a lease every third of its time until ctx ends. The channel
// tells of renewals, dropping what is not taken, and is closed when ctx ended
// or the lease was lost; so a closed channel with a live ctx is a lost lease.
func (c *Client) KeepAlive(ctx context.Context, id int64) <-chan *pb.LeaseKeepAliveResponse {
	return c.keeper.keep(ctx, id)
}
