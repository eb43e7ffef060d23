package raft

import (
	"sync/atomic"
	"time"
)

// heartbeat counts the ticks at which a leader speaks that came late: others may
// then take it for dead. A machine without time for it, or one that was stopped
// for a while, is the usual cause; the disk is not, as the loop never waits for it.
type heartbeat struct {
	last   time.Time // owner: the loop
	late   atomic.Uint64
	pauses atomic.Uint64
	seen   atomic.Int64 // last, in Unix nanoseconds
}

// A member that has not ticked for so many intervals has paused.
const pauseTicks = 3

// tick notes a tick; one counts as late when the one before it is two intervals
// ago.
func (h *heartbeat) tick(now time.Time, every time.Duration, leading bool) {
	if leading && !h.last.IsZero() && now.Sub(h.last) > 2*every {
		h.late.Add(1)
	}
	gap := max(now.Sub(h.last), now.Round(0).Sub(h.last.Round(0))) // the first stands still with a suspended machine
	if !h.last.IsZero() && gap > pauseTicks*every {
		h.pauses.Add(1)
	}
	h.last = now
	h.seen.Store(now.UnixNano())
}

// Pauses counts how often this member stood still so long that the others may
// have elected a leader without it noticing; one that goes on at now counts.
// While the number stays the same, a leader that has asked a quorum once still
// leads, or has lost the lead for less than an election timeout.
func (n *Node) Pauses(now time.Time) uint64 {
	seen := n.beat.seen.Load() // first: a tick between the two must not hide a pause
	count := n.beat.pauses.Load()
	if seen != 0 && now.UnixNano()-seen > int64(pauseTicks*n.cfg.TickEvery) {
		count++
	}
	return count
}

// LateHeartbeats counts the heartbeats that this member, leading, sent late.
func (n *Node) LateHeartbeats() uint64 { return n.beat.late.Load() }
