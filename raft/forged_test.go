package raft

import (
	"fmt"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// FuzzStep: if it fails, whoever reaches the peer port can end the process with
// a message, other than by saying that this member has lost what it had written.
func FuzzStep(f *testing.F) {
	prop := withEntry(message(raftpb.MsgProp, 2, 0), raftpb.EntryNormal, 0, "x")
	read := withEntry(message(raftpb.MsgReadIndex, 2, 0), raftpb.EntryNormal, 0, "r")
	app := withEntry(message(raftpb.MsgApp, 2, 2), raftpb.EntryNormal, 4, "a")
	app.Index, app.LogTerm, app.Commit = new(uint64(3)), new(uint64(1)), new(uint64(3))
	change := withEntry(message(raftpb.MsgProp, 2, 0), raftpb.EntryConfChange, 0, "\x10\x01\x18\x05")
	snap := message(raftpb.MsgSnap, 2, 2)
	snap.Snapshot = &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(9)), Term: new(uint64(2)), ConfState: &raftpb.ConfState{Voters: []uint64{1, 2}}}}
	var all []byte
	for _, m := range []*raftpb.Message{
		prop, read, change, message(raftpb.MsgTransferLeader, 2, 2), message(raftpb.MsgTimeoutNow, 2, 2), message(raftpb.MsgPreVote, 2, 3),
		message(raftpb.MsgAppResp, 2, 2), message(raftpb.MsgHeartbeatResp, 2, 2), message(raftpb.MsgVote, 2, 3), message(raftpb.MsgHeartbeat, 2, 3), app, snap,
	} {
		one, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(protowire.AppendBytes(nil, one), byte(1))
		f.Add(protowire.AppendBytes(nil, one), byte(3))
		all = protowire.AppendBytes(all, one)
	}
	f.Add(all, byte(1))
	f.Add(all, byte(2))
	f.Fuzz(func(t *testing.T, messages []byte, members byte) {
		defer func() {
			if p := recover(); p != nil && !isLostLog(fmt.Sprint(p)) {
				panic(p)
			}
		}()
		c, w, _ := testCore(t, 1+int(members)%3)
		_ = c.rn.Campaign()
		settle(t, c, w)
		for len(messages) > 0 {
			one, n := protowire.ConsumeBytes(messages)
			if n < 0 {
				return
			}
			messages = messages[n:]
			var m raftpb.Message
			if proto.Unmarshal(one, &m) != nil || !isPossible(&m, 1) {
				continue
			}
			c.step(&m)
			settle(t, c, w)
		}
	})
}

// isLostLog tells the panics that mean that what this member had written is gone,
// or that another leader has committed something else.
func isLostLog(text string) bool {
	return strings.Contains(text, "Was the raft log corrupted, truncated, or lost?") || strings.Contains(text, "conflict with committed entry")
}
