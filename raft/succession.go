package raft

import "go.etcd.io/raft/v3/raftpb"

// succession lets the followers of a leader that fell silent stand for election
// one after the other, by the order of their ids, so that a new leader comes
// soon after the election timeout and not by chance up to twice as late. Where
// the first in the line is down, has a log that is behind, or shared the votes
// with another one, the next in the line follows, and so on round the line until
// two election timeouts are over. From then on, and before there ever was a
// leader, the random timeouts of the library decide alone.
//
// The first one waits one tick longer than the election timeout: until then
// the others, whose ticks may fall a little later, still refuse their votes in
// favour of the old leader.
type succession struct {
	electionTicks int
	leader        MemberID // the last one; 0 until there is one
	silent        int      // ticks since it was heard
}

// turnTicks lie between two followers' turns: time for a round of votes.
const turnTicks = 2

// follow takes the news of a new leader.
func (s *succession) follow(leader MemberID) { s.leader, s.silent = leader, 0 }

// heard takes a message from another member.
func (s *succession) heard(m *raftpb.Message) {
	if MemberID(m.GetFrom()) != s.leader {
		return
	}
	switch m.GetType() {
	case raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgSnap:
		s.silent = 0
	}
}

// tick reports whether it is now the turn of self, who does not lead.
func (s *succession) tick(self MemberID, voters []MemberID) bool {
	if s.silent++; s.leader == 0 || s.silent <= s.electionTicks || s.silent >= 2*s.electionTicks {
		return false
	}
	place, heirs, votes := 0, 0, false
	for _, id := range voters {
		votes = votes || id == self
		if id != s.leader || id == self {
			heirs++
			if id < self {
				place++
			}
		}
	}
	return votes && (s.silent-s.electionTicks-1)%(heirs*turnTicks) == place*turnTicks
}
