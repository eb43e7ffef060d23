// Package raft keeps one log of commands the same on all members of a
// cluster. It knows bytes, not keys.
//
// The promise: every member hands the same entries, in the same order and
// without a gap, to its applier; an entry is handed over only when a quorum
// has it on disk and this member has it on disk too; an entry handed over
// anywhere is never lost or changed by crashes of any number of members, as
// long as their disks keep what was synced.
//
// Words: an entry is appended when the log writer has written and synced it
// here, committed when a quorum has done so, applied when the applier has
// called [Node.Applied]. A proposal is a command that may become an entry.
//
// # Parts
//
//	transport ─┐                          ┌─> transport (at once)
//	proposals ─┼─> inbox ─> core ─> work ─┼─> writer ─> disk ─> inbox, transport
//	ticks ─────┘  (loop goroutine)        └─> Applies() ─> applier ─> inbox
//
// core decides and does nothing else: no goroutine, no clock, no I/O. Node is
// the one goroutine around it; it never waits for a disk, the applier or the
// network, so heartbeats go on while an fsync hangs. The writer is the other
// goroutine: it takes everything queued, appends it, syncs once, and only then
// lets the answers go. The same core and the same writer step run in the
// simulation of sim_test.go, where one goroutine plays a cluster with a bad
// network and disks that forget.
//
// # What is durable when
//
// An answer that promises something (a vote, an accepted append, this member's
// own share of a quorum) leaves only after the sync that covers it, and so does
// a candidate's question for votes, which the library would let go earlier. A
// commit index that merely advanced is written without a sync: it can be
// learned again. So the applied index saved by the state machine may lie above
// the commit index on disk; the node then starts at the lower of the two and
// hands those entries over again, and the machine skips what it has.
//
// # Randomness
//
// Election timeouts are drawn by the library from the variable
// crypto/rand.Reader; there is no other way in. A simulator that wants the same
// run twice assigns a seeded reader to that variable before it makes its
// nodes, and draws from one goroutine. Everything else random (the read-index
// nonce) comes from Config.Rand.
package raft
