package raft

import (
	"testing"
	"time"
)

// If this fails, an operator is not told that a leader is too busy to lead, or is
// told so of one that is not.
func TestLateHeartbeats(t *testing.T) {
	const every = 100 * time.Millisecond
	for _, c := range []struct {
		gap     time.Duration
		leading bool
		want    uint64
	}{{every, true, 0}, {2 * every, true, 0}, {2*every + 1, true, 1}, {time.Minute, false, 0}} {
		var h heartbeat
		now := time.Unix(100, 0)
		h.tick(now, every, true)
		h.tick(now.Add(c.gap), every, c.leading)
		if got := h.late.Load(); got != c.want {
			t.Errorf("%v after the last one, leading %t: %d late, want %d", c.gap, c.leading, got, c.want)
		}
	}
}
