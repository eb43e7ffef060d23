package raft

import (
	"slices"
	"testing"
	"time"
)

// If this fails, a leader that was cut off or stood still ends leases that the
// new leader has renewed: what it decided in its own term is passed on.
func TestOldLeaderDecidesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		nodes := c.startAll(3)
		old := leader(t, nodes...)
		old.put("a")
		term := old.Term()
		if err := old.ProposeInTerm(c.ctx, []byte("of its term"), term); err != nil {
			t.Fatal(err)
		}
		old.untilApplied("of its term")
		if err := old.TransferAway(c.ctx); err != nil {
			t.Fatal(err)
		}
		leader(t, nodes...)
		if err := old.ProposeInTerm(c.ctx, []byte("revoke"), term); err != nil {
			t.Fatal(err)
		}
		old.put("passed on") // comes after it
		for _, n := range nodes {
			n.untilApplied("passed on")
			n.mu.Lock()
			if slices.Contains(n.applied, "revoke") {
				t.Errorf("member %d applied what the leader of term %d decided, in a later one", n.cfg.ID, term)
			}
			n.mu.Unlock()
		}
		old.in.mu.Lock()
		defer old.in.mu.Unlock()
		if old.in.proposalBytes != 0 {
			t.Errorf("%d bytes count as queued for ever", old.in.proposalBytes)
		}
	})
}

// If this fails, a leader that stood still answers from its past when it wakes.
func TestPausesAreCounted(t *testing.T) {
	const every = 100 * time.Millisecond
	n := &Node{cfg: Config{TickEvery: every}}
	now := time.Unix(100, 0)
	n.beat.tick(now, every, true)
	n.beat.tick(now.Add(every), every, true)
	if p := n.Pauses(now.Add(3 * every)); p != 0 {
		t.Errorf("%d pauses of a member that ticks", p)
	}
	now = now.Add(time.Second)
	during := n.Pauses(now)
	n.beat.tick(now, every, true)
	if after := n.Pauses(now); during != 1 || after != 1 {
		t.Errorf("a pause counts %d during it and %d after, want 1", during, after)
	}
}
