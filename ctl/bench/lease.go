package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// leaseTTL is long enough that no lease of the load ends by itself, and ends soon if the tool is killed.
const leaseTTL = 600

var errLeaseGone = errors.New("the lease to keep alive does not exist")

// grant makes the leases of a lease-keepalive load.
func (l *Load) grant() error {
	for i := range l.options.Leases {
		answer := &pb.LeaseGrantResponse{}
		if err := l.pool.at(i).Invoke(l.ctx, rpcGrant, &pb.LeaseGrantRequest{TTL: leaseTTL}, answer); err != nil {
			return fmt.Errorf("grant lease %d of %d: %w", i+1, l.options.Leases, err)
		}
		l.leases = append(l.leases, answer.ID)
	}
	return nil
}

// revoke ends the leases; one that cannot be revoked ends by its TTL.
func (l *Load) revoke() {
	ctx, cancel := context.WithTimeout(l.ctx, l.options.CallMax)
	defer cancel()
	for i, id := range l.leases {
		if l.pool.at(i).Invoke(ctx, rpcRevoke, &pb.LeaseRevokeRequest{ID: id}, &reply{}) != nil {
			return
		}
	}
}

// keeper renews client i's leases in turn, each on the client's own stream.
func (l *Load) keeper(i int) (issue, error) {
	stream, err := l.pool.at(i).NewStream(l.ctx, &duplex, rpcKeepAlive)
	if err != nil {
		return nil, fmt.Errorf("open keep-alive stream %d: %w", i, err)
	}
	var mine []int64
	for at := i; at < len(l.leases); at += l.options.Clients {
		mine = append(mine, l.leases[at])
	}
	request, answer, turn := &pb.LeaseKeepAliveRequest{}, &keepAliveReply{}, 0
	return func(context.Context, int64, time.Duration) (outcome, error) {
		request.ID = mine[turn%len(mine)]
		turn++
		if err := stream.SendMsg(request); err != nil {
			return outcome{}, err
		}
		if err := stream.RecvMsg(answer); err != nil {
			return outcome{}, err
		}
		if answer.ttl <= 0 {
			return outcome{}, errLeaseGone
		}
		return outcome{}, nil
	}, nil
}
