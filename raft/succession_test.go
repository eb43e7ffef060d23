package raft

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// If this fails, a cluster whose leader died is without one for longer than it
// needs to be: twice the election timeout, or more when the votes are split.
func TestNewLeaderComesSoon(t *testing.T) {
	const timeout = time.Second // ten ticks
	for _, tc := range []struct {
		name          string
		members, dead int // dead: the leader and the next in line
		within        time.Duration
	}{
		{"three members", 3, 1, timeout + 300*time.Millisecond},
		{"five members", 5, 1, timeout + 300*time.Millisecond},
		{"five members without the first in line", 5, 2, timeout + 500*time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *cluster) {
				nodes := c.startAll(tc.members)
				for round := range 20 {
					lead := leader(t, nodes...)
					data := fmt.Sprint("a", round)
					lead.put(data)
					for _, n := range nodes {
						n.untilApplied(data) // a log that is behind wins no election
					}
					alive := slices.DeleteFunc(slices.Clone(nodes), func(n *testNode) bool { return n == lead })
					dead := append([]*testNode{lead}, alive[:tc.dead-1]...)
					alive = alive[tc.dead-1:]
					for _, n := range dead {
						c.partition(n.cfg.ID, true)
					}
					begin := time.Now()
					for {
						changes := alive[0].Changes()
						if now := alive[0].Leader(); now != 0 && now != lead.cfg.ID {
							break
						}
						<-changes
					}
					if waited := time.Since(begin); waited > tc.within {
						t.Errorf("new leader after %v, want at most %v", waited, tc.within)
					}
					for _, n := range dead {
						c.partition(n.cfg.ID, false)
					}
				}
			})
		})
	}
}
