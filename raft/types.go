package raft

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Index is a position in the log; the first entry has Index 1.
type Index uint64

// Term counts elections; a term has at most one leader.
type Term uint64

// MemberID names a member of the cluster. 0 is no member.
type MemberID uint64

// Message is what members say to each other.
type Message = raftpb.Message

// HardState is the term, vote and commit index as the log on disk has them.
type HardState = raftpb.HardState

// RawEntry is an entry as the log on disk has it.
type RawEntry = raftpb.Entry

// EntryKind says how to read an entry's data.
type EntryKind uint8

// The kinds of entries. EntryConfChangeV2 is never proposed by Kvorum or etcd.
const (
	EntryNormal       EntryKind = EntryKind(raftpb.EntryNormal)
	EntryConfChange   EntryKind = EntryKind(raftpb.EntryConfChange)
	EntryConfChangeV2 EntryKind = EntryKind(raftpb.EntryConfChangeV2)
)

// Entry is one committed entry. Data belongs to the log: read it, keep it, do
// not change it. A new leader's first entry is EntryNormal with no data.
type Entry struct {
	Index Index
	Term  Term
	Kind  EntryKind
	Data  []byte
}

// ConfChangeKind says what a ConfChange does to its member.
type ConfChangeKind uint8

// The kinds of membership changes. AddVoter also promotes a learner.
const (
	AddVoter     ConfChangeKind = ConfChangeKind(raftpb.ConfChangeAddNode)
	RemoveMember ConfChangeKind = ConfChangeKind(raftpb.ConfChangeRemoveNode)
	UpdateMember ConfChangeKind = ConfChangeKind(raftpb.ConfChangeUpdateNode)
	AddLearner   ConfChangeKind = ConfChangeKind(raftpb.ConfChangeAddLearnerNode)
)

// ConfChange adds, removes or changes one member. ID is the proposer's own
// number to find the entry again; Context is opaque here.
type ConfChange struct {
	ID      uint64
	Kind    ConfChangeKind
	Member  MemberID
	Context []byte
}

// Encode is the data of the entry that carries the change.
func (c ConfChange) Encode() ([]byte, error) {
	data, err := proto.Marshal(c.proto())
	if err != nil {
		return nil, fmt.Errorf("encode conf change: %w", err)
	}
	return data, nil
}

func (c ConfChange) proto() *raftpb.ConfChange {
	cc := &raftpb.ConfChange{
		Type:    raftpb.ConfChangeType(c.Kind).Enum(),
		NodeId:  new(uint64(c.Member)),
		Context: c.Context,
	}
	if c.ID != 0 {
		cc.Id = new(c.ID)
	}
	return cc
}

// DecodeConfChange reads the data of an EntryConfChange.
func DecodeConfChange(data []byte) (ConfChange, error) {
	var cc raftpb.ConfChange
	if err := proto.Unmarshal(data, &cc); err != nil {
		return ConfChange{}, fmt.Errorf("decode conf change: %w", err)
	}
	return ConfChange{
		ID:      cc.GetId(),
		Kind:    ConfChangeKind(cc.GetType()),
		Member:  MemberID(cc.GetNodeId()),
		Context: cc.GetContext(),
	}, nil
}

// ConfState is who votes and who only listens.
type ConfState struct{ Voters, Learners []MemberID }

// Has reports whether the member is a voter or a learner.
func (s ConfState) Has(id MemberID) bool { return has(s.Voters, id) || has(s.Learners, id) }

func has(ids []MemberID, id MemberID) bool {
	for _, other := range ids {
		if other == id {
			return true
		}
	}
	return false
}

// Proto is the state in the form that the log and snapshots carry.
func (s ConfState) Proto() *raftpb.ConfState {
	return &raftpb.ConfState{
		Voters: numbers(s.Voters), Learners: numbers(s.Learners), AutoLeave: new(false),
	}
}

// ConfStateOf reads the form that the log and snapshots carry.
func ConfStateOf(cs *raftpb.ConfState) ConfState {
	return ConfState{Voters: members(cs.GetVoters()), Learners: members(cs.GetLearners())}
}

func numbers(ids []MemberID) []uint64 {
	out := make([]uint64, len(ids))
	for i, id := range ids {
		out[i] = uint64(id)
	}
	return out
}

func members(ids []uint64) []MemberID {
	out := make([]MemberID, len(ids))
	for i, id := range ids {
		out[i] = MemberID(id)
	}
	return out
}

// SnapshotMeta is the log position that a whole-state file stands for, and the
// membership at that position.
type SnapshotMeta struct {
	Index Index
	Term  Term
	Conf  ConfState
}

func (s SnapshotMeta) proto() *raftpb.SnapshotMetadata {
	return &raftpb.SnapshotMetadata{
		ConfState: s.Conf.Proto(), Index: new(uint64(s.Index)), Term: new(uint64(s.Term)),
	}
}

func snapshotMetaOf(m *raftpb.SnapshotMetadata) SnapshotMeta {
	return SnapshotMeta{
		Index: Index(m.GetIndex()), Term: Term(m.GetTerm()), Conf: ConfStateOf(m.GetConfState()),
	}
}

// Describe writes meta (and data, the legacy body of the .snap file) into a
// message that carries a snapshot. A [SnapshotSender] calls it with the
// position of the body it really sends.
func Describe(m *Message, meta SnapshotMeta, data []byte) {
	m.Snapshot = &raftpb.Snapshot{Data: data, Metadata: meta.proto()}
}

// Described reads what Describe wrote.
func Described(m *Message) SnapshotMeta { return snapshotMetaOf(m.GetSnapshot().GetMetadata()) }

// Apply is the applier's next work: either committed entries or, alone, a
// snapshot to install. The slice Entries may be used until Applied is called
// with this Apply; the Data within may be kept.
type Apply struct {
	Entries  []Entry
	Snapshot *SnapshotMeta

	answers []*raftpb.Message // for the core, once applied
	bytes   int
	urgent  bool // the core waits for this answer: do not leave it for the next tick
}

// State is what a node starts from. Entries are those above Snapshot.Index, in
// order. Conf is the membership as of Applied. Applied is the position of the
// state machine; it may be above HardState's commit index (entries in between
// are then handed to the applier again).
type State struct {
	HardState *raftpb.HardState
	Entries   []*raftpb.Entry
	Snapshot  SnapshotMeta
	Conf      ConfState
	Applied   Index
}

// check refuses a log that the library would panic on.
func (s State) check() error {
	next := uint64(s.Snapshot.Index) + 1
	for _, e := range s.Entries {
		if e.GetIndex() != next {
			return fmt.Errorf("%w: entry %d where %d belongs", ErrBadLog, e.GetIndex(), next)
		}
		next++
	}
	commit := Index(s.HardState.GetCommit())
	if commit < s.Snapshot.Index || commit > s.last() {
		return fmt.Errorf("%w: state.commit %d is out of range [%d, %d]", ErrBadLog, commit, s.Snapshot.Index, s.last())
	}
	return nil
}

// Bootstrap is the state of a member of a new cluster: one AddVoter entry per
// member, in the given order (ascending by ID on every member), all committed
// in term 1. The caller appends HardState and Entries to a fresh log and syncs
// it before New.
func Bootstrap(changes []ConfChange) (State, error) {
	if len(changes) == 0 {
		return State{}, errors.New("bootstrap: no members")
	}
	entries := make([]*raftpb.Entry, len(changes))
	for i, cc := range changes {
		data, err := cc.Encode()
		if err != nil {
			return State{}, err
		}
		entries[i] = &raftpb.Entry{
			Type: raftpb.EntryConfChange.Enum(), Term: new(uint64(1)), Index: new(uint64(i + 1)), Data: data,
		}
	}
	hs := &raftpb.HardState{Term: new(uint64(1)), Vote: new(uint64(0)), Commit: new(uint64(len(changes)))}
	return State{HardState: hs, Entries: entries}, nil
}

// What can go wrong, and what the caller should do.
var (
	// ErrStopped: Run has ended or is ending; the outcome is unknown. Stop.
	ErrStopped = errors.New("raft: node stopped")
	// ErrTooManyRequests: the proposal queue is full; nothing was queued. Tell
	// the client to slow down.
	ErrTooManyRequests = errors.New("raft: too many proposals queued")
	// ErrQueueFull: a message from another member was dropped. Let it be sent
	// again.
	ErrQueueFull = errors.New("raft: message queue full")
	// ErrBadMessage: a message that no member may send. Drop it.
	ErrBadMessage = errors.New("raft: not a message between members")
	// ErrLeaderChanged: the leader that was asked for a read index is no longer
	// the leader. Ask again.
	ErrLeaderChanged = errors.New("raft: leader changed")
	// ErrNoLeader: nobody leads. Wait for Changes and try again.
	ErrNoLeader = errors.New("raft: no leader")
	// ErrNotLeader: only the leader can do this. Ask the leader.
	ErrNotLeader = errors.New("raft: not leader")
	// ErrBadTransferee: leadership cannot go to that member: it is no voter.
	ErrBadTransferee = errors.New("raft: bad leader transferee")
	// ErrBadLog: the log that New was given has a gap or lacks what it calls
	// committed. Tell the operator.
	ErrBadLog = errors.New("raft: log is incomplete")
	// ErrAppliedBeyondLog: the state machine is ahead of the whole log: the
	// directory mixes files of different times. Tell the operator.
	ErrAppliedBeyondLog = errors.New("raft: applied index lies beyond the log")
)
