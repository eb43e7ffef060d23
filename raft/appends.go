package raft

import "go.etcd.io/raft/v3/raftpb"

// Appends counts the messages that carry log entries to a follower.
func Appends(msgs ...*Message) (n uint64) {
	for _, m := range msgs {
		if m.GetType() == raftpb.MsgApp {
			n++
		}
	}
	return n
}
