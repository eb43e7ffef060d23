package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kvorum/kvorum/internal/crash"
	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/server/api"
	"github.com/kvorum/kvorum/server/state"
)

// leaseApplyWait bounds how long the leader's answer about a lease waits for
// the applier.
const leaseApplyWait = time.Second

// NextLeaseID implements api.Member.
func (s *Server) NextLeaseID() int64 { return s.ids.nextLease() }

// RenewLease implements api.Member.
func (s *Server) RenewLease(ctx context.Context, id int64) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.requestTimeout())
	defer cancel()
	for {
		ttl, err := s.renewHere(ctx, id)
		if !errors.Is(err, api.ErrNotPrimaryLessor) {
			return ttl, err
		}
		ttl, err = s.renewAtLeader(ctx, id)
		if err == nil || errors.Is(err, state.ErrLeaseNotFound) {
			return ttl, err
		}
		if err := s.pauseForLeader(ctx); err != nil {
			return 0, err
		}
	}
}

// pauseForLeader waits a heartbeat for a leader to appear.
func (s *Server) pauseForLeader(ctx context.Context) error {
	select {
	case <-time.After(time.Duration(s.cfg.HeartbeatMillis) * time.Millisecond):
		return nil
	case <-s.stopping:
		return api.ErrStopped
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.Canceled) {
			return api.ErrCanceled
		}
		return api.ErrTimeout
	}
}

// renewHere renews at this member if it leads. While the lease is being
// revoked the renewal waits for the end of it. A lease that another member has
// granted may not have been applied here yet.
func (s *Server) renewHere(ctx context.Context, id int64) (int64, error) {
	if err := s.stillLeads(ctx); err != nil {
		return 0, err
	}
	if !s.fastKeepAlive {
		if err := s.catchUp(); err != nil {
			return 0, err
		}
	}
	for caughtUp := false; ; {
		r := s.leases.renew(s.node.Term(), id, time.Now())
		switch {
		case !r.leading:
			return 0, api.ErrNotPrimaryLessor
		case !r.found && caughtUp:
			return 0, state.ErrLeaseNotFound
		case !r.found:
			if err := s.ReadBarrier(ctx); err != nil {
				return 0, err
			}
			caughtUp = true
			continue
		case r.gone == nil:
			if r.checkpointed {
				crash.Here("beforeCheckpointInLeaseRenew")
				if err := s.forgetCheckpoint(ctx, id, r.proposing); err != nil {
					return 0, err
				}
			}
			s.metrics.LeasesRenewed.Inc()
			return int64(r.ttl / time.Second), nil
		}
		select {
		case <-r.gone:
		case <-ctx.Done():
			return 0, api.ErrTimeout
		case <-s.stopping:
			return 0, api.ErrStopped
		}
	}
}

// stillLeads asks a quorum whether this member leads if it has stood still since
// it last asked: another may have been elected meanwhile and have ended leases
// that are still kept here.
func (s *Server) stillLeads(ctx context.Context) error {
	pauses := s.node.Pauses(time.Now())
	if !s.leading() || s.ledAfterPauses.Load() == pauses {
		return nil
	}
	if _, err := s.readIndex(ctx); err != nil {
		return err
	}
	if !s.leading() || s.leases.ledTerm() != s.node.Term() {
		return api.ErrNotPrimaryLessor
	}
	s.ledAfterPauses.Store(pauses)
	return nil
}

func (s *Server) renewAtLeader(ctx context.Context, id int64) (int64, error) {
	ask := pb.LeaseKeepAliveRequest{ID: id}
	var answer pb.LeaseKeepAliveResponse
	err := s.askLeader(ctx, "/leases", ask.MarshalVT, answer.UnmarshalVT)
	return answer.TTL, err
}

// LeaseTimeToLive implements api.Member.
func (s *Server) LeaseTimeToLive(ctx context.Context, id int64, keys bool) (*pb.LeaseTimeToLiveResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.requestTimeout())
	defer cancel()
	for {
		answer, err := s.timeToLiveHere(id, keys)
		if !errors.Is(err, api.ErrNotPrimaryLessor) {
			return answer, err
		}
		envelope := leaseTTLEnvelope{request: &pb.LeaseTimeToLiveRequest{ID: id, Keys: keys}}
		err = s.askLeader(ctx, "/leases/internal", envelope.marshalRequest, envelope.unmarshalResponse)
		if err == nil || errors.Is(err, state.ErrLeaseNotFound) {
			return envelope.response, err
		}
		if err := s.pauseForLeader(ctx); err != nil {
			return nil, err
		}
	}
}

// catchUp waits, not for long, until this member has applied what is committed
// now.
func (s *Server) catchUp() error {
	ctx, cancel := context.WithTimeout(context.Background(), leaseApplyWait)
	defer cancel()
	committed := uint64(s.node.Status().Commit)
	err := s.progress.wait(ctx, committed, s.stopping, api.ErrStopped)
	if errors.Is(err, context.DeadlineExceeded) {
		return api.ErrTimeoutApply
	}
	return err
}

// timeToLiveHere answers if this member leads, after it has applied what was
// committed when the question came.
func (s *Server) timeToLiveHere(id int64, keys bool) (*pb.LeaseTimeToLiveResponse, error) {
	if err := s.catchUp(); err != nil {
		return nil, err
	}
	left, ttl, found, leading := s.leases.left(id, time.Now())
	switch {
	case !leading:
		return nil, api.ErrNotPrimaryLessor
	case !found:
		return nil, state.ErrLeaseNotFound
	}
	answer := &pb.LeaseTimeToLiveResponse{ID: id, TTL: int64(left / time.Second), GrantedTTL: int64(ttl / time.Second)}
	if keys {
		answer.Keys = s.store.LeaseKeys(mvcc.LeaseID(id))
	}
	return answer, nil
}

// askLeader posts a small message to the leader's peer URLs, one after the
// other.
func (s *Server) askLeader(ctx context.Context, path string, encode func() ([]byte, error), decode func([]byte) error) error {
	leader, ok := s.machine.Member(state.MemberID(s.node.Leader()))
	if !ok || leader.ID == s.self {
		return api.ErrNoLeader
	}
	body, err := encode()
	if err != nil {
		return err
	}
	last := api.ErrNoLeader
	for _, u := range leader.PeerURLs {
		answer, err := s.postPeer(ctx, u, path, body)
		if err == nil {
			return decode(answer)
		}
		if errors.Is(err, state.ErrLeaseNotFound) {
			return err
		}
		last = err
	}
	return last
}

func (s *Server) postPeer(ctx context.Context, peerURL, path string, body []byte) ([]byte, error) {
	r, err := peerRequest(ctx, http.MethodPost, peerURL, path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/protobuf")
	answer, err := s.peerClient.Do(r)
	if err != nil {
		return nil, fmt.Errorf("ask member at %s: %w", peerURL, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 16*peerBodyBytesMax))
	if err != nil {
		return nil, fmt.Errorf("read answer of %s: %w", peerURL, err)
	}
	switch answer.StatusCode {
	case http.StatusOK:
		return text, nil
	case http.StatusNotFound:
		return nil, state.ErrLeaseNotFound
	}
	return nil, fmt.Errorf("member at %s answered %s: %s", peerURL, answer.Status, bytes.TrimSpace(text))
}

// leaseTTLEnvelope wraps question and answer in field 1 of a message of their
// own, as the peer protocol has it.
type leaseTTLEnvelope struct {
	request  *pb.LeaseTimeToLiveRequest
	response *pb.LeaseTimeToLiveResponse
}

func (e leaseTTLEnvelope) marshalRequest() ([]byte, error) { return wrapField1(e.request.MarshalVT()) }
func (e leaseTTLEnvelope) marshalResponse() ([]byte, error) {
	return wrapField1(e.response.MarshalVT())
}

func (e *leaseTTLEnvelope) unmarshalRequest(b []byte) error {
	e.request = &pb.LeaseTimeToLiveRequest{}
	return unwrapField1(b, e.request.UnmarshalVT)
}

func (e *leaseTTLEnvelope) unmarshalResponse(b []byte) error {
	e.response = &pb.LeaseTimeToLiveResponse{}
	return unwrapField1(b, e.response.UnmarshalVT)
}

func wrapField1(inner []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), inner), nil
}

func unwrapField1(b []byte, decode func([]byte) error) error {
	number, kind, n := protowire.ConsumeTag(b)
	if n < 0 || number != 1 || kind != protowire.BytesType {
		return fmt.Errorf("decode lease question: field 1 is missing")
	}
	inner, n := protowire.ConsumeBytes(b[n:])
	if n < 0 {
		return fmt.Errorf("decode lease question: %w", protowire.ParseError(n))
	}
	return decode(inner)
}

// SortLeases implements api.Member: the leader knows when leases end, the others leave them in the order of their ids.
func (s *Server) SortLeases(leases []state.Lease) {
	s.leases.sort(leases)
}

// runLeases revokes leases whose time is up, while this member leads.
func (s *Server) runLeases(ctx context.Context) error {
	every(ctx, leaseTick, func(now time.Time) {
		ids, term := s.leases.due(now, s.cfg.requestTimeout())
		for _, id := range ids {
			s.proposeRevoke(ctx, id, term)
		}
	})
	return nil
}

// proposeRevoke does not wait: the applier tells the keeper when the lease has
// ended, and a revoke that was lost is due again later. It is made in the name of
// root, who may delete the keys of any lease under any auth revision.
//
// Invariant: it takes effect only in the term in which the deadline was kept. A
// leader that has stood still finds all its leases overdue when it wakes up; if
// the revoke were passed on to the leader of by then, it would end leases that
// this one knows to be renewed.
func (s *Server) proposeRevoke(ctx context.Context, id int64, term raft.Term) {
	r := pb.InternalRaftRequest{Header: &pb.RequestHeader{ID: s.ids.next(), Username: state.RootUser}, LeaseRevoke: &pb.LeaseRevokeRequest{ID: id}}
	data, err := r.MarshalVT()
	if err == nil {
		s.metrics.LeasesExpired.Inc()
		err = s.node.ProposeInTerm(ctx, data, term)
	}
	if err != nil {
		s.log.Warn("lease revoke was not proposed", "lease", fmt.Sprintf("%016x", id), "error", err.Error())
	}
}

// leaseTerms is every lease as the keeper needs it, from the replicated state.
func (s *Server) leaseTerms() []leaseTerm { return termsOf(s.machine.Leases()) }

func termsOf(leases []state.Lease) []leaseTerm {
	terms := make([]leaseTerm, len(leases))
	for i, l := range leases {
		ttl := time.Duration(l.TTL) * time.Second
		left := ttl
		if l.RemainingTTL > 0 {
			left = time.Duration(l.RemainingTTL) * time.Second
		}
		terms[i] = leaseTerm{id: int64(l.ID), ttl: ttl, left: left, checkpointed: l.RemainingTTL > 0}
	}
	return terms
}
