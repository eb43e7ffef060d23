package raft

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
)

// Last is the index of the last entry of the log.
func (s State) Last() Index { return s.last() }

// ForceMembers makes the state that of a cluster whose membership was changed
// by decree: entries that are not committed are dropped, and the changes are
// appended as committed. The caller writes HardState and the returned entries
// to the log and syncs it before New. It is for a cluster that has lost its
// quorum for good; what only the lost members had is lost.
func (s *State) ForceMembers(changes []ConfChange) ([]*RawEntry, error) {
	commit := max(s.HardState.GetCommit(), uint64(s.Applied))
	kept := s.Entries[:0:0]
	for _, e := range s.Entries {
		if e.GetIndex() <= commit {
			kept = append(kept, e)
		}
	}
	var added []*RawEntry
	for i, cc := range changes {
		data, err := cc.Encode()
		if err != nil {
			return nil, fmt.Errorf("force members: %w", err)
		}
		added = append(added, &raftpb.Entry{
			Type: raftpb.EntryConfChange.Enum(), Term: new(s.HardState.GetTerm()), Index: new(commit + uint64(i) + 1), Data: data,
		})
	}
	s.Entries = append(kept, added...)
	s.HardState = &raftpb.HardState{
		Term: new(s.HardState.GetTerm()), Vote: new(s.HardState.GetVote()), Commit: new(commit + uint64(len(added))),
	}
	return added, nil
}
