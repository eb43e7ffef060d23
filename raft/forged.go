package raft

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// isPossible reports whether a member that keeps to the protocol could have sent
// the message. The library panics on some that none could: whoever reaches the
// peer port would end the process by them.
//
// What depends on the own log is not looked at here. A leader that says that more
// is committed than this member has written means that the member has lost its
// log; that ends the process, and must.
func isPossible(m *raftpb.Message, self MemberID) bool {
	if raft.IsLocalMsg(m.GetType()) || raft.IsLocalMsgTarget(m.GetFrom()) || m.GetFrom() == uint64(self) {
		return false
	}
	switch m.GetType() {
	case raftpb.MsgProp:
		return len(m.GetEntries()) > 0 && areReadable(m.GetEntries())
	case raftpb.MsgReadIndex:
		return len(m.GetEntries()) == 1
	case raftpb.MsgSnap:
		at := m.GetSnapshot().GetMetadata()
		return m.GetTerm() > 0 && at.GetIndex() > 0 && at.GetTerm() <= m.GetTerm() && isPlain(at.GetConfState())
	case raftpb.MsgApp:
		return m.GetTerm() > 0 && areInOrder(m) && areReadable(m.GetEntries())
	default:
		return m.GetTerm() > 0 // without a term a message counts as the member's own
	}
}

// areInOrder holds when the entries follow the one that the message names.
func areInOrder(m *raftpb.Message) bool {
	index, term := m.GetIndex(), m.GetLogTerm()
	for _, e := range m.GetEntries() {
		index++
		if e.GetIndex() != index || e.GetTerm() < term || e.GetTerm() > m.GetTerm() {
			return false
		}
		term = e.GetTerm()
	}
	return true
}

// areReadable holds when the library can read the membership changes.
func areReadable(entries []*raftpb.Entry) bool {
	for _, e := range entries {
		switch e.GetType() {
		case raftpb.EntryNormal:
		case raftpb.EntryConfChange:
			cc, err := DecodeConfChange(e.GetData())
			if err != nil || raftpb.ConfChangeType_name[int32(cc.Kind)] == "" {
				return false
			}
		default:
			return false // nobody proposes EntryConfChangeV2, and the applier does not know it
		}
	}
	return true
}

// isPlain holds for the membership of a cluster that changes by one member at a
// time: somebody votes, and nobody is named twice.
func isPlain(cs *raftpb.ConfState) bool {
	seen := map[uint64]bool{0: true}
	for _, id := range slices.Concat(cs.GetVoters(), cs.GetLearners()) {
		if seen[id] {
			return false
		}
		seen[id] = true
	}
	return len(cs.GetVoters()) > 0 && len(cs.GetVotersOutgoing())+len(cs.GetLearnersNext()) == 0 && !cs.GetAutoLeave() &&
		len(cs.ProtoReflect().GetUnknown()) == 0 // the library compares them too
}
