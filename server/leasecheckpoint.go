package server

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/kvorum/kvorum/internal/crash"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server/api"
)

// Lease checkpoints. The deadlines of leases are only in the leader's memory; a
// new leader would give every lease its full time again, and a lease that is
// longer than leaders last would never end. So the leader tells the others now
// and then what is left of the long ones:
//
//	granted ---- checkpoint: 3300 s left ---- new leader: goes on with 3300 s
//	                          \---- renewed: checkpoint: 0, the full time again
//
// The second kind must be replicated before a renewal is answered, else a new
// leader could end a lease that its client was told is renewed.

// checkpointsMax is how many leases one entry of the log carries.
const checkpointsMax = 1000

// checkpointable are the leases that have more than min left, in order.
func (k *leaseKeeper) checkpointable(min time.Duration, now time.Time) []int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	var ids []int64
	for id, item := range k.items {
		if !item.revoking && item.deadline.Sub(now) > min {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// beginCheckpoint gives what is left of leases, of which some may have gone, for
// a proposal. Renewals of them wait until it is over: what they replicate must
// come after it.
func (k *leaseKeeper) beginCheckpoint(ids []int64, now time.Time) []*pb.LeaseCheckpoint {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.proposing = make(chan struct{})
	var all []*pb.LeaseCheckpoint
	for _, id := range ids {
		item := k.items[id]
		if item == nil || item.revoking || !now.Before(item.deadline) {
			continue
		}
		item.checkpointed = true
		left := (item.deadline.Sub(now) + time.Second - 1) / time.Second // a lease must not live shorter
		all = append(all, &pb.LeaseCheckpoint{ID: id, Remaining_TTL: int64(min(left, item.ttl/time.Second))})
	}
	return all
}

func (k *leaseKeeper) endCheckpoint() {
	k.mu.Lock()
	defer k.mu.Unlock()
	close(k.proposing)
	k.proposing = nil
}

// checkpointed is called by the applier when the state has a remaining time for a
// lease, or no longer has.
func (k *leaseKeeper) checkpointed(id, remaining int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if item := k.items[id]; item != nil {
		item.checkpointed = remaining > 0
	}
}

// runCheckpoints tells the other members, while this one leads, what is left of
// long leases.
func (s *Server) runCheckpoints(ctx context.Context) error {
	if !s.cfg.enabled(FeatureLeaseCheckpoint) {
		return nil
	}
	interval := s.cfg.checkpointEvery
	if crash.Set("server/fast-lease-checkpoints") {
		interval = time.Second
	}
	every(ctx, interval, func(now time.Time) {
		for ids := range slices.Chunk(s.leases.checkpointable(interval, now), checkpointsMax) {
			if err := s.checkpoint(ctx, ids); err != nil {
				if ctx.Err() == nil {
					s.log.Warn("leases were not checkpointed", "leases", len(ids), "error", err.Error())
				}
				return
			}
		}
	})
	return nil
}

func (s *Server) checkpoint(ctx context.Context, ids []int64) error {
	all := s.leases.beginCheckpoint(ids, time.Now())
	defer s.leases.endCheckpoint()
	if len(all) == 0 {
		return nil
	}
	return s.proposeInternal(ctx, &pb.InternalRaftRequest{LeaseCheckpoint: &pb.LeaseCheckpointRequest{Checkpoints: all}})
}

// forgetCheckpoint replicates that a lease has its full time again.
func (s *Server) forgetCheckpoint(ctx context.Context, id int64, proposing <-chan struct{}) error {
	if proposing != nil {
		select {
		case <-proposing:
		case <-ctx.Done():
			return api.ErrTimeout
		}
	}
	full := &pb.LeaseCheckpointRequest{Checkpoints: []*pb.LeaseCheckpoint{{ID: id}}}
	if err := s.proposeInternal(ctx, &pb.InternalRaftRequest{LeaseCheckpoint: full}); err != nil {
		return fmt.Errorf("renew lease %016x: %w", id, err)
	}
	return nil
}
