package state

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/kvorum/kvorum/internal/must"
	"github.com/kvorum/kvorum/mvcc"
	"github.com/kvorum/kvorum/proto/membershippb"
)

// MemberID names a member. It is never reused after the member was removed.
type MemberID uint64

// Member is one member of the cluster. Its JSON is the value in the bucket
// members and the context of a membership change; the order of the keys is
// part of the format. Members are shared: do not change their slices.
type Member struct {
	ID         MemberID `json:"id"`
	PeerURLs   []string `json:"peerURLs"`
	IsLearner  bool     `json:"isLearner,omitempty"`
	Name       string   `json:"name,omitempty"`
	ClientURLs []string `json:"clientURLs,omitempty"`
}

// ConfChangeKind is what a configuration entry does; the numbers are those of
// the log.
type ConfChangeKind uint8

// The kinds of ConfChange. A promotion is an AddNode whose context says so.
const (
	AddNode ConfChangeKind = iota
	RemoveNode
	UpdateNode
	AddLearnerNode
)

// ConfChange is the content of a configuration entry.
type ConfChange struct {
	ID      uint64 // the request id; 0 at bootstrap
	Kind    ConfChangeKind
	Member  MemberID
	Context []byte // JSON of the member; empty for RemoveNode
}

// memberContext is the JSON of a ConfChange's Context.
type memberContext struct {
	Member
	IsPromote bool `json:"isPromote,omitempty"`
}

// MemberContext returns the Context that adds a member or updates its peer
// URLs.
func MemberContext(member Member) []byte {
	return encodeJSON(memberContext{Member: member})
}

// PromoteContext returns the Context that turns a learner into a voter.
func PromoteContext(id MemberID) []byte {
	return encodeJSON(memberContext{Member: Member{ID: id}, IsPromote: true})
}

func encodeJSON(v any) []byte {
	b, err := json.Marshal(v)
	must.NoError(err, "encode JSON")
	return b
}

// ConfState is the configuration that raft derives from the members, ids
// ascending.
type ConfState struct {
	Voters, Learners []MemberID
}

// MemberChangeKind says what happened to a member.
type MemberChangeKind uint8

// The kinds of MemberChange. MemberUpdated has new peer URLs, MemberPublished a
// new name or new client URLs.
const (
	MemberAdded MemberChangeKind = iota + 1
	MemberPromoted
	MemberUpdated
	MemberPublished
	MemberRemoved
)

// MemberChange tells of the change of one member: the member as it is now, or
// as it last was if it was removed.
type MemberChange struct {
	Kind   MemberChangeKind
	Member Member
}

// RemovedMark is the value in the bucket members_removed.
const RemovedMark = "removed"

// memberKey is a member's key in the buckets members and members_removed.
func memberKey(id MemberID) []byte {
	return strconv.AppendUint(nil, uint64(id), 16)
}

func parseMemberKey(k []byte) (MemberID, error) {
	id, err := strconv.ParseUint(string(k), 16, 64)
	return MemberID(id), err
}

func loadMembers(store *mvcc.Store) (map[MemberID]Member, error) {
	members := map[MemberID]Member{}
	err := store.Load(mvcc.BucketMembers, func(k, v []byte) error {
		id, err := parseMemberKey(k)
		if err != nil {
			return fmt.Errorf("member id %q: %w", k, err)
		}
		var member Member
		if err := json.Unmarshal(v, &member); err != nil {
			return fmt.Errorf("member %x: %w", id, err)
		}
		if member.ID != id {
			return fmt.Errorf("member %x: record says id %x", id, member.ID)
		}
		members[id] = member
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load members: %w", err)
	}
	return members, nil
}

func loadRemovedMembers(store *mvcc.Store) (map[MemberID]struct{}, error) {
	removed := map[MemberID]struct{}{}
	err := store.Load(mvcc.BucketMembersRemoved, func(k, _ []byte) error {
		id, err := parseMemberKey(k)
		if err != nil {
			return fmt.Errorf("member id %q: %w", k, err)
		}
		removed[id] = struct{}{}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load removed members: %w", err)
	}
	return removed, nil
}

// ApplyConfChange executes one configuration entry. If the Result has an Err,
// raft must be given a no-op in its place. Only the applier calls it, in log
// order with Apply.
//
// A Skipped change is part of ConfState already. Raft, which is started with
// that, must not be given it again either.
func (m *Machine) ApplyConfChange(at mvcc.Applied, cc ConfChange) Result {
	if at.Index <= m.applied.Index {
		return Result{Skipped: true}
	}
	m.applied = at
	w := m.store.Write(at)
	defer w.Close()

	res := Result{RequestID: cc.ID, Op: opUnknown}
	change, err := m.checkConfChange(cc)
	if err != nil {
		res.Err = err
		return res
	}
	if change.Kind == MemberRemoved {
		m.removeMember(w, change.Member.ID)
	} else {
		m.setMember(w, change.Member)
	}
	w.Set(mvcc.BucketMeta, []byte(ConfStateKey), m.cluster.confState().Encode())
	res.Member = &change
	return res
}

// checkConfChange returns what a change does to which member, or why it must
// not be done.
func (m *Machine) checkConfChange(cc ConfChange) (MemberChange, error) {
	if _, removed := m.cluster.removed[cc.Member]; removed {
		return MemberChange{}, ErrMemberRemoved
	}
	old, exists := m.cluster.members[cc.Member]
	if cc.Kind == RemoveNode {
		switch {
		case !exists:
			return MemberChange{}, ErrMemberNotFound
		case m.cluster.isLastVoter(cc.Member):
			return MemberChange{}, ErrLastVoter
		}
		return MemberChange{Kind: MemberRemoved, Member: old}, nil
	}
	context, err := decodeContext(cc)
	if err != nil {
		return MemberChange{}, err
	}
	switch {
	case cc.Kind == UpdateNode:
		return m.checkUpdate(context, old, exists)
	case context.IsPromote:
		return checkPromote(old, exists)
	}
	return m.checkAdd(context.Member, exists)
}

func decodeContext(cc ConfChange) (memberContext, error) {
	var c memberContext
	if err := json.Unmarshal(cc.Context, &c); err != nil {
		return c, fmt.Errorf("%w: context of a membership change: %w", ErrMalformed, err)
	}
	switch {
	case cc.Member == 0:
		return c, fmt.Errorf("%w: member id 0", ErrMalformed)
	case c.ID != cc.Member:
		return c, fmt.Errorf("%w: got different member ID: %x in a change of %x", ErrMalformed, c.ID, cc.Member)
	case cc.Kind > AddLearnerNode:
		return c, fmt.Errorf("%w: membership change of kind %d", ErrMalformed, cc.Kind)
	case cc.Kind != UpdateNode && c.IsLearner != (cc.Kind == AddLearnerNode):
		return c, fmt.Errorf("%w: a membership change and its context differ in isLearner", ErrMalformed)
	}
	return c, nil
}

func (m *Machine) checkAdd(member Member, exists bool) (MemberChange, error) {
	switch {
	case exists:
		return MemberChange{}, ErrMemberExists
	case m.cluster.peerURLTaken(member):
		return MemberChange{}, ErrPeerURLExists
	case member.IsLearner && m.cluster.learnerCount() >= m.options.MaxLearners:
		return MemberChange{}, ErrTooManyLearners
	}
	return MemberChange{Kind: MemberAdded, Member: member}, nil
}

func (m *Machine) checkUpdate(c memberContext, old Member, exists bool) (MemberChange, error) {
	switch {
	case !exists:
		return MemberChange{}, ErrMemberNotFound
	case m.cluster.peerURLTaken(c.Member):
		return MemberChange{}, ErrPeerURLExists
	}
	old.PeerURLs = c.PeerURLs
	return MemberChange{Kind: MemberUpdated, Member: old}, nil
}

func checkPromote(old Member, exists bool) (MemberChange, error) {
	switch {
	case !exists:
		return MemberChange{}, ErrMemberNotFound
	case !old.IsLearner:
		return MemberChange{}, ErrMemberNotLearner
	}
	old.IsLearner = false
	return MemberChange{Kind: MemberPromoted, Member: old}, nil
}

func (m *Machine) setMember(w *mvcc.Writer, member Member) {
	w.Set(mvcc.BucketMembers, memberKey(member.ID), encodeJSON(member))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cluster.members[member.ID] = member
}

func (m *Machine) removeMember(w *mvcc.Writer, id MemberID) {
	w.Delete(mvcc.BucketMembers, memberKey(id))
	w.Set(mvcc.BucketMembersRemoved, memberKey(id), []byte(RemovedMark))
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.cluster.members, id)
	m.cluster.removed[id] = struct{}{}
}

// setMemberAttributes publishes a member's name and client URLs. What a member
// said just before it was removed is passed over.
func (m *Machine) setMemberAttributes(w *mvcc.Writer, r *membershippb.ClusterMemberAttrSetRequest, res *Result) {
	id := MemberID(r.Member_ID)
	if _, removed := m.cluster.removed[id]; removed {
		return
	}
	member, ok := m.cluster.members[id]
	switch {
	case !ok:
		res.Err = ErrMemberNotFound
		return
	case r.MemberAttributes == nil:
		res.Err = fmt.Errorf("%w: member attributes are missing", ErrMalformed)
		return
	}
	// Through JSON, invalid UTF-8 reads back differently; memory must hold what
	// the store will say.
	member.Name = strings.ToValidUTF8(r.MemberAttributes.Name, "\uFFFD")
	member.ClientURLs = nil
	for _, u := range r.MemberAttributes.ClientUrls {
		member.ClientURLs = append(member.ClientURLs, strings.ToValidUTF8(u, "\uFFFD"))
	}
	m.setMember(w, member)
	res.Member = &MemberChange{Kind: MemberPublished, Member: member}
}

// Members returns all members, ids ascending.
func (m *Machine) Members() []Member {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.cluster.sortedMembers()
}

// Member returns the member with an id; false if there is none.
func (m *Machine) Member(id MemberID) (Member, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	member, ok := m.cluster.members[id]
	return member, ok
}

// IsRemoved reports whether the id belonged to a member that was removed.
func (m *Machine) IsRemoved(id MemberID) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, removed := m.cluster.removed[id]
	return removed
}

// RemovedMembers returns the ids of all members that were removed, ascending.
func (m *Machine) RemovedMembers() []MemberID {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := make([]MemberID, 0, len(m.cluster.removed))
	for id := range m.cluster.removed {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// ConfState returns the configuration for raft.
func (m *Machine) ConfState() ConfState {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.cluster.confState()
}
