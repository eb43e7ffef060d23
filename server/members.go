package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/server/api"
	"github.com/kvorum/kvorum/server/state"
	"github.com/kvorum/kvorum/server/trace"
)

const (
	// A peer counts as connected for a member change after this long.
	healthyAfter = 5 * time.Second
	// A learner may be promoted when it has this share of the leader's log.
	learnerReadyShare = 0.9
)

// AddMember implements api.Member.
func (s *Server) AddMember(ctx context.Context, peerURLs []string, learner bool) (state.Member, error) {
	if err := s.checkAdd(learner); err != nil {
		return state.Member{}, err
	}
	now := time.Now()
	m := state.Member{ID: memberID(peerURLs, "", &now), PeerURLs: peerURLs, IsLearner: learner}
	kind := raft.AddVoter
	if learner {
		kind = raft.AddLearner
	}
	return m, s.changeMembers(ctx, raft.ConfChange{Kind: kind, Member: raft.MemberID(m.ID), Context: state.MemberContext(m)})
}

// RemoveMember implements api.Member.
func (s *Server) RemoveMember(ctx context.Context, id uint64) error {
	if err := s.checkRemove(state.MemberID(id)); err != nil {
		return err
	}
	return s.changeMembers(ctx, raft.ConfChange{Kind: raft.RemoveMember, Member: raft.MemberID(id)})
}

// UpdateMember implements api.Member.
func (s *Server) UpdateMember(ctx context.Context, id uint64, peerURLs []string) error {
	if _, ok := s.machine.Member(state.MemberID(id)); !ok {
		return state.ErrMemberNotFound
	}
	m := state.Member{ID: state.MemberID(id), PeerURLs: peerURLs}
	return s.changeMembers(ctx, raft.ConfChange{Kind: raft.UpdateMember, Member: raft.MemberID(id), Context: state.MemberContext(m)})
}

// PromoteMember implements api.Member: only the leader knows whether the
// learner has caught up, so a follower asks it.
func (s *Server) PromoteMember(ctx context.Context, id uint64) error {
	err := s.promoteHere(ctx, id)
	if !errors.Is(err, api.ErrNotLeader) {
		if err != nil {
			s.metrics.NotPromoted(err)
		} else {
			s.metrics.Promotions.Inc()
		}
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.requestTimeout())
	defer cancel()
	for {
		err := s.promoteAtLeader(ctx, id)
		if err == nil || !errors.Is(err, api.ErrNoLeader) {
			return err
		}
		if err := s.pauseForLeader(ctx); err != nil {
			return err
		}
	}
}

func (s *Server) promoteAtLeader(ctx context.Context, id uint64) error {
	leader, ok := s.machine.Member(state.MemberID(s.node.Leader()))
	if !ok || leader.ID == s.self {
		return api.ErrNoLeader
	}
	for _, u := range leader.PeerURLs {
		r, err := peerRequest(ctx, http.MethodPost, u, "/members/promote/"+strconv.FormatUint(id, 10), nil)
		if err != nil {
			return err
		}
		answer, err := s.peerClient.Do(r)
		if err != nil {
			continue
		}
		text, _ := io.ReadAll(io.LimitReader(answer.Body, peerBodyBytesMax))
		answer.Body.Close()
		if answer.StatusCode == http.StatusOK {
			return nil
		}
		return promoteError(string(text))
	}
	return api.ErrNoLeader
}

// promoteError finds the sentinel that the leader's text stands for.
func promoteError(text string) error {
	for _, known := range []error{state.ErrMemberNotFound, state.ErrMemberNotLearner, api.ErrLearnerNotReady, api.ErrNotEnoughStarted, api.ErrTimeout} {
		if len(text) >= len(known.Error()) && text[:len(known.Error())] == known.Error() {
			return known
		}
	}
	return fmt.Errorf("leader refused to promote: %s", text)
}

// promoteHere promotes if this member leads.
func (s *Server) promoteHere(ctx context.Context, id uint64) error {
	m, ok := s.machine.Member(state.MemberID(id))
	switch {
	case !ok:
		return state.ErrMemberNotFound
	case !m.IsLearner:
		return state.ErrMemberNotLearner
	}
	ready, err := s.learnerReady(ctx, raft.MemberID(id))
	switch {
	case errors.Is(err, raft.ErrNotLeader):
		return api.ErrNotLeader
	case err != nil:
		return err
	case !ready:
		return api.ErrLearnerNotReady
	}
	if err := s.checkAdd(false); err != nil && !errors.Is(err, api.ErrUnhealthy) {
		return err
	}
	return s.changeMembers(ctx, raft.ConfChange{Kind: raft.AddVoter, Member: raft.MemberID(id), Context: state.PromoteContext(state.MemberID(id))})
}

// learnerReady compares a learner's log with this leader's.
func (s *Server) learnerReady(ctx context.Context, id raft.MemberID) (bool, error) {
	all, err := s.node.Progress(ctx)
	if err != nil {
		return false, err
	}
	var mine, theirs raft.Index
	for _, p := range all {
		switch p.ID {
		case raft.MemberID(s.self):
			mine = p.Match
		case id:
			theirs = p.Match
		}
	}
	return float64(theirs) >= float64(mine)*learnerReadyShare, nil
}

// changeMembers proposes a membership change and waits until it was applied
// here or refused.
func (s *Server) changeMembers(ctx context.Context, cc raft.ConfChange) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.requestTimeout())
	defer cancel()
	cc.ID = s.ids.next()
	now := time.Now()
	w := s.waiters.add(cc.ID, now, now.Add(s.cfg.requestTimeout()), trace.Span{})
	if err := s.node.ProposeConfChange(ctx, cc); err != nil {
		return s.notProposed(cc.ID, w, err)
	}
	_, err := s.await(ctx, cc.ID, w)
	return err
}

// MoveLeader implements api.Member.
func (s *Server) MoveLeader(ctx context.Context, to uint64) error {
	m, ok := s.machine.Member(state.MemberID(to))
	if !ok || m.IsLearner {
		return api.ErrBadTransferee
	}
	if s.node.Leader() != raft.MemberID(s.self) {
		return api.ErrNotLeader
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.requestTimeout())
	defer cancel()
	if err := s.node.TransferLeader(ctx, raft.MemberID(to)); err != nil {
		if ctx.Err() != nil {
			return api.ErrTimeoutTransfer
		}
		return err
	}
	return nil
}

// started counts the voters and those of them that have published themselves.
func started(members []state.Member) (voters, running int) {
	for _, m := range members {
		if m.IsLearner {
			continue
		}
		voters++
		if len(m.ClientURLs) > 0 || m.Name != "" {
			running++
		}
	}
	return voters, running
}

// checkAdd refuses an addition after which the started members would be no
// quorum, or while this member is not well connected.
func (s *Server) checkAdd(learner bool) error {
	if !s.cfg.StrictReconfigCheck {
		return nil
	}
	members := s.machine.Members()
	voters, running := started(members)
	if !learner && (voters != 1 || running != 1) && running < (voters+1)/2+1 {
		return api.ErrNotEnoughStarted
	}
	if !s.wellConnected(members) {
		return api.ErrUnhealthy
	}
	return nil
}

// wellConnected tells whether this member has long been connected to a quorum
// that would still be one if the new member stayed down.
func (s *Server) wellConnected(members []state.Member) bool {
	voters, connected := 0, 0
	for _, m := range members {
		if m.IsLearner {
			continue
		}
		voters++
		if m.ID == s.self || s.longActive(m.ID) {
			connected++
		}
	}
	return voters == 1 || connected >= (voters+1)/2+1
}

func (s *Server) longActive(id state.MemberID) bool {
	since := s.transport.ActiveSince(uint64(id))
	return !since.IsZero() && time.Since(since) >= healthyAfter
}

// checkRemove refuses a removal after which the rest would be no quorum.
func (s *Server) checkRemove(id state.MemberID) error {
	m, ok := s.machine.Member(id)
	if !ok {
		return state.ErrMemberNotFound
	}
	if !s.cfg.StrictReconfigCheck || m.IsLearner {
		return nil
	}
	var left []state.Member
	for _, other := range s.machine.Members() {
		if other.ID != id {
			left = append(left, other)
		}
	}
	voters, running := started(left)
	if voters == 0 || running < voters/2+1 {
		return api.ErrNotEnoughStarted
	}
	return s.checkRemoveActive(id)
}

// checkRemoveActive: an inactive member may always go; an active one only if
// the active rest is still a quorum of today's members.
func (s *Server) checkRemoveActive(id state.MemberID) error {
	if id != s.self && s.transport.ActiveSince(uint64(id)).IsZero() {
		return nil
	}
	voters, active := 0, 0
	for _, m := range s.machine.Members() {
		if m.IsLearner {
			continue
		}
		voters++
		if m.ID == s.self || !s.transport.ActiveSince(uint64(m.ID)).IsZero() {
			active++
		}
	}
	if active-1 < 1+(voters-2)/2 {
		return api.ErrUnhealthy
	}
	return nil
}

// fetchMembers asks the peer URLs of a running cluster for its members and ID.
func fetchMembers(ctx context.Context, client *http.Client, urls []string) (members []state.Member, cluster uint64, err error) {
	for _, u := range urls {
		members, cluster, err = fetchMembersFrom(ctx, client, u)
		if err == nil {
			return members, cluster, nil
		}
	}
	return nil, 0, fmt.Errorf("could not retrieve cluster information from the given URLs: %w", err)
}

func fetchMembersFrom(ctx context.Context, client *http.Client, u string) ([]state.Member, uint64, error) {
	r, err := peerRequest(ctx, http.MethodGet, u, "/members", nil)
	if err != nil {
		return nil, 0, err
	}
	answer, err := client.Do(r)
	if err != nil {
		return nil, 0, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, 0, fmt.Errorf("member at %s answered %s", u, answer.Status)
	}
	var list []peerMember
	if err := json.NewDecoder(io.LimitReader(answer.Body, 16*peerBodyBytesMax)).Decode(&list); err != nil {
		return nil, 0, fmt.Errorf("read members of %s: %w", u, err)
	}
	cluster, err := strconv.ParseUint(answer.Header.Get("X-Etcd-Cluster-ID"), 16, 64)
	if err != nil {
		return nil, 0, fmt.Errorf("read cluster ID of %s: %w", u, err)
	}
	members := make([]state.Member, len(list))
	for i, m := range list {
		members[i] = state.Member{ID: state.MemberID(m.ID), Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, IsLearner: m.IsLearner}
	}
	return members, cluster, nil
}
