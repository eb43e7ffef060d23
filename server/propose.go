package server

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/kvorum/kvorum/internal/plant"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/server/api"
	"github.com/kvorum/kvorum/server/state"
)

// slowReadIndexAfter is when a read-index round counts as slow.
const slowReadIndexAfter = 500 * time.Millisecond

// Propose implements api.Member. r gets its header here and must not be used
// by the caller afterwards. The header names whoever ctx says has asked, and the
// machine checks that they may when it applies the command.
func (s *Server) Propose(ctx context.Context, r *pb.InternalRaftRequest) (state.Result, error) {
	id := s.ids.next()
	r.Header = &pb.RequestHeader{ID: id}
	if s.machine.AuthEnabled() {
		c := api.CallerOf(ctx)
		r.Header.Username, r.Header.AuthRevision = c.User, c.AuthRevision
	}
	size := r.SizeVT()
	if size > int(s.cfg.MaxRequestBytes) {
		return state.Result{}, api.ErrRequestTooLarge
	}
	if s.applyLag() > s.lagMax(r) {
		return state.Result{}, api.ErrTooManyRequests
	}
	data := make([]byte, size)
	if _, err := r.MarshalToSizedBufferVT(data); err != nil {
		return state.Result{}, err
	}
	if s.node.Leader() == 0 {
		// Raft would wait for a leader as long as the client does. The context
		// has to live until the result is there: raft drops what has lost its
		// client.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.cfg.requestTimeout())
		defer cancel()
	}
	ctx, span := s.tracer.Start(ctx, "propose")
	span.Int("entry_bytes", size)
	now := time.Now()
	w := s.waiters.add(id, now, now.Add(s.cfg.requestTimeout()), span)
	if err := s.node.Propose(ctx, data); err != nil {
		err = s.notProposed(id, w, err)
		s.metrics.Requested(requestName(r), time.Since(now), err)
		span.End(err)
		return state.Result{}, err
	}
	result, err := s.await(ctx, id, w)
	span.End(err)
	name := result.Op
	if name == "" {
		name = requestName(r)
	}
	s.metrics.Requested(name, time.Since(now), err)
	return result, err
}

// requestName is the name of a command's kind, for one that was not applied:
// LeaseGrant of the field lease_grant.
func requestName(r *pb.InternalRaftRequest) string {
	name := ""
	r.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if f.Name() == "header" || f.Name() == "ID" {
			return true
		}
		for part := range strings.SplitSeq(string(f.Name()), "_") {
			name += strings.ToUpper(part[:1]) + part[1:]
		}
		return false
	})
	return name
}

// lagMax is how far the applier may be behind the log before a proposal is
// refused: a queue that only grows helps nobody. With FeaturePriorityRequest a
// revoke of a lease, which makes the store smaller, is let in for longer.
func (s *Server) lagMax(r *pb.InternalRaftRequest) uint64 {
	if r.LeaseRevoke != nil {
		return s.revokeLagMax
	}
	return s.cfg.applyLagMax
}

// applyLag is how many committed entries this member has not applied.
func (s *Server) applyLag() uint64 {
	committed, applied := uint64(s.node.Commit()), s.progress.applied.Load()
	if committed < applied {
		return 0
	}
	return committed - applied
}

// notProposed takes the waiter back when raft did not take the proposal.
func (s *Server) notProposed(id uint64, w *waiter, err error) error {
	if !s.waiters.remove(id) {
		<-w.done
	}
	s.waiters.put(w)
	s.proposalsFailed.Add(1)
	switch {
	case errors.Is(err, raft.ErrTooManyRequests):
		return api.ErrTooManyRequests
	case errors.Is(err, context.Canceled):
		return api.ErrCanceled
	}
	return err
}

// await waits for the result of a proposal that raft has taken. A proposal
// that is given up may still take effect.
func (s *Server) await(ctx context.Context, id uint64, w *waiter) (state.Result, error) {
	var r state.Result
	select {
	case r = <-w.done:
	case <-ctx.Done():
		if s.waiters.remove(id) {
			r.Err = abandoned(ctx.Err())
			s.proposalsFailed.Add(1)
		} else {
			r = <-w.done
		}
	case <-s.stopping:
		if s.waiters.remove(id) {
			r.Err = api.ErrStopped
		} else {
			r = <-w.done
		}
	}
	s.waiters.put(w)
	return r, r.Err
}

// abandoned is the error of a caller that did not wait for the result.
func abandoned(err error) error {
	if errors.Is(err, context.Canceled) {
		return api.ErrCanceled
	}
	return api.ErrTimeout
}

// runExpiry ends proposals that take too long. Their outcome is unknown.
func (s *Server) runExpiry(ctx context.Context) error {
	every(ctx, s.cfg.requestTimeout()/16, func(now time.Time) {
		s.waiters.expire(now, func(since time.Time) error {
			s.proposalsFailed.Add(1)
			return s.timeoutError(since)
		})
	})
	return nil
}

// timeoutError says why a proposal made at since has probably timed out.
func (s *Server) timeoutError(since time.Time) error {
	elected := time.Unix(0, s.leaderSince.Load())
	lost := elected.Add(-2 * s.cfg.electionTimeout())
	leader := s.node.Leader()
	switch {
	case since.After(lost) && since.Before(elected):
		return api.ErrTimeoutLeaderFailure
	case leader == raft.MemberID(s.self) && !s.quorumActive(since):
		return api.ErrTimeoutConnection
	case leader != 0 && leader != raft.MemberID(s.self) && !s.activeSince(state.MemberID(leader), since):
		return api.ErrTimeoutConnection
	}
	return api.ErrTimeout
}

// activeSince tells whether the link to a member has stood since then.
func (s *Server) activeSince(id state.MemberID, since time.Time) bool {
	t := s.transport.ActiveSince(uint64(id))
	return !t.IsZero() && t.Before(since)
}

// quorumActive tells whether the links to a quorum have stood since then.
func (s *Server) quorumActive(since time.Time) bool {
	voters, active := 0, 0
	for _, m := range s.machine.Members() {
		if m.IsLearner {
			continue
		}
		voters++
		if m.ID == s.self || s.activeSince(m.ID, since) {
			active++
		}
	}
	return active > voters/2
}

// ReadBarrier implements api.Member: a read-index round, then the applier's
// progress up to the index that came of it.
func (s *Server) ReadBarrier(ctx context.Context) error {
	if s.tracer == nil {
		return s.readBarrier(ctx)
	}
	ctx, span := s.tracer.Start(ctx, "read barrier")
	err := s.readBarrier(ctx)
	span.End(err)
	return err
}

func (s *Server) readBarrier(ctx context.Context) error {
	if plant.Here(plant.StaleRead) {
		return nil
	}
	index, err := s.readIndex(ctx)
	if err != nil {
		return err
	}
	err = s.progress.wait(ctx, uint64(index), s.stopping, api.ErrStopped)
	if err != nil && errors.Is(err, context.Canceled) {
		return api.ErrCanceled
	}
	return err
}

// readIndex bounds the wait for a leader and a quorum.
func (s *Server) readIndex(ctx context.Context) (raft.Index, error) {
	if index, ok := s.node.SoloIndex(); ok {
		return index, nil
	}
	bounded, cancel := context.WithTimeout(ctx, s.cfg.requestTimeout())
	defer cancel()
	began := time.Now()
	index, err := s.node.ReadIndex(bounded)
	if time.Since(began) > slowReadIndexAfter {
		s.slowReadIndexes.Add(1)
	}
	switch {
	case err == nil:
		return index, nil
	case errors.Is(err, raft.ErrStopped):
		return 0, api.ErrStopped
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
		s.readIndexFailed.Add(1)
		return 0, api.ErrTimeout
	}
	s.readIndexFailed.Add(1)
	return 0, err
}
