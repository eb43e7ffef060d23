package raft

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Appends counts the messages that carry log entries to a follower.
func Appends(msgs ...*Message) (n uint64) {
	for _, m := range msgs {
		if m.GetType() == raftpb.MsgApp {
			n++
		}
	}
	return n
}

// EncodeProposal is the message with which a follower forwards a proposal, for a
// member that has no node to do it.
func EncodeProposal(from, to MemberID, data []byte) ([]byte, error) {
	m := proposeMessage(from, []proposal{{data: data}})
	m.To = new(uint64(to))
	body, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode proposal: %w", err)
	}
	return body, nil
}
