package grpcproxy

import (
	"bytes"
	"context"

	"google.golang.org/grpc"

	"github.com/kvorum/kvorum/proto/v3electionpb"
	"github.com/kvorum/kvorum/proto/v3lockpb"
)

// lockService serves v3lockpb.Lock. Locks are keys: they have the namespace, and
// what was read of them is forgotten.
type lockService struct {
	v3lockpb.UnimplementedLockServer
	*Proxy
	up v3lockpb.LockClient
}

// Lock waits for the lock.
func (s lockService) Lock(ctx context.Context, r *v3lockpb.LockRequest) (*v3lockpb.LockResponse, error) {
	r.Name = s.ns.name(r.Name)
	response, err := s.up.Lock(outgoing(ctx), r, callOptions()...)
	s.cache.forget(span{r.Name, prefixEnd(r.Name)})
	if err != nil {
		return nil, err
	}
	response.Key = bytes.TrimPrefix(response.Key, s.ns)
	return response, nil
}

// Unlock gives the lock up.
func (s lockService) Unlock(ctx context.Context, r *v3lockpb.UnlockRequest) (*v3lockpb.UnlockResponse, error) {
	r.Key = s.ns.key(r.Key)
	response, err := s.up.Unlock(outgoing(ctx), r, callOptions()...)
	s.cache.forget(span{key: r.Key})
	return response, err
}

// electionService serves v3electionpb.Election, as lockService does.
type electionService struct {
	v3electionpb.UnimplementedElectionServer
	*Proxy
	up v3electionpb.ElectionClient
}

// Campaign waits for leadership.
func (s electionService) Campaign(ctx context.Context, r *v3electionpb.CampaignRequest) (*v3electionpb.CampaignResponse, error) {
	r.Name = s.ns.name(r.Name)
	response, err := s.up.Campaign(outgoing(ctx), r, callOptions()...)
	s.cache.forget(span{r.Name, prefixEnd(r.Name)})
	if err != nil {
		return nil, err
	}
	if l := response.Leader; l != nil {
		l.Name, l.Key = bytes.TrimPrefix(l.Name, s.ns), bytes.TrimPrefix(l.Key, s.ns)
	}
	return response, nil
}

// leaderKey is the leadership as the cluster knows it.
func (s electionService) leaderKey(l *v3electionpb.LeaderKey) span {
	if l == nil {
		return span{}
	}
	l.Name, l.Key = s.ns.name(l.Name), s.ns.key(l.Key)
	return span{key: l.Key}
}

// Proclaim replaces what the leader says.
func (s electionService) Proclaim(ctx context.Context, r *v3electionpb.ProclaimRequest) (*v3electionpb.ProclaimResponse, error) {
	changed := s.leaderKey(r.Leader)
	response, err := s.up.Proclaim(outgoing(ctx), r, callOptions()...)
	s.cache.forget(changed)
	return response, err
}

// Resign gives leadership up.
func (s electionService) Resign(ctx context.Context, r *v3electionpb.ResignRequest) (*v3electionpb.ResignResponse, error) {
	changed := s.leaderKey(r.Leader)
	response, err := s.up.Resign(outgoing(ctx), r, callOptions()...)
	s.cache.forget(changed)
	return response, err
}

// Leader tells who leads.
func (s electionService) Leader(ctx context.Context, r *v3electionpb.LeaderRequest) (*v3electionpb.LeaderResponse, error) {
	r.Name = s.ns.name(r.Name)
	response, err := s.up.Leader(outgoing(ctx), r, callOptions()...)
	if err != nil {
		return nil, err
	}
	s.ns.strip(response.Kv)
	return response, nil
}

// Observe tells who leads, and every change.
func (s electionService) Observe(r *v3electionpb.LeaderRequest, stream grpc.ServerStreamingServer[v3electionpb.LeaderResponse]) error {
	r.Name = s.ns.name(r.Name)
	up, err := s.up.Observe(outgoing(stream.Context()), r, callOptions()...)
	if err != nil {
		return err
	}
	for {
		response, err := up.Recv()
		if err != nil {
			return endOf(err)
		}
		s.ns.strip(response.Kv)
		if err := stream.Send(response); err != nil {
			return err
		}
	}
}
