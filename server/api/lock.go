package api

import (
	"context"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/v3lockpb"
)

// Lock serves v3lockpb.Lock: locks for clients that do not want to make them
// of keys themselves.
type Lock struct {
	v3lockpb.UnimplementedLockServer
	*Services
}

// Lock waits until the client's lease holds the lock. A client that stops
// waiting leaves the queue.
func (l Lock) Lock(ctx context.Context, r *v3lockpb.LockRequest) (*v3lockpb.LockResponse, error) {
	p := &place{name: r.Name, lease: r.Lease}
	header, held, _, err := l.join(ctx, p)
	if err == nil && !held {
		header, err = l.await(ctx, p, ErrMutexSession)
	}
	if err != nil {
		return nil, clientError(err)
	}
	return &v3lockpb.LockResponse{Header: header, Key: p.key}, nil
}

// Unlock deletes the key that Lock has answered with.
func (l Lock) Unlock(ctx context.Context, r *v3lockpb.UnlockRequest) (*v3lockpb.UnlockResponse, error) {
	remove := &pb.DeleteRangeRequest{Key: r.Key}
	response, err := inner(ctx, l.Services, pb.KV_DeleteRange_FullMethodName, remove, KV{Services: l.Services}.DeleteRange)
	if err != nil {
		return nil, clientError(err)
	}
	return &v3lockpb.UnlockResponse{Header: response.Header}, nil
}

func checkUnlock(r *v3lockpb.UnlockRequest) error {
	if len(r.Key) == 0 {
		return ErrKeyEmpty
	}
	return nil
}
