// Package server makes one member out of the parts: it opens the log and the
// store, joins them through raft, and serves clients and peers.
//
// It promises that a write is answered only after a quorum has it on disk and
// this member has applied it; that a linearizable read sees every write that
// was answered before it began; and that what cannot be known (a proposal that
// timed out) is reported as unknown, never as success or failure.
//
// The path of one write: api checks it, Server.Propose encodes it and hands it
// to the raft node, the node's writer makes it durable, applier.run applies it
// and wakes the proposer. docs/write.md walks through it.
package server
