package raft

import (
	"sync/atomic"
	"time"
)

// heartbeat counts the ticks at which a leader speaks that came late: others may
// then take it for dead. A machine without time for it, or one that was stopped
// for a while, is the usual cause; the disk is not, as the loop never waits for it.
type heartbeat struct {
	last time.Time // owner: the loop
	late atomic.Uint64
}

// tick notes a tick; one counts as late when the one before it is two intervals
// ago.
func (h *heartbeat) tick(now time.Time, every time.Duration, leading bool) {
	if leading && !h.last.IsZero() && now.Sub(h.last) > 2*every {
		h.late.Add(1)
	}
	h.last = now
}

// LateHeartbeats counts the heartbeats that this member, leading, sent late.
func (n *Node) LateHeartbeats() uint64 { return n.beat.late.Load() }
