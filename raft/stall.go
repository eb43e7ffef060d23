package raft

import "sync/atomic"

// stall watches for a disk that no longer answers. The loop never waits for the
// disk, so a leader whose disk hangs would go on sending heartbeats, and stay
// in office without being able to acknowledge anything.
//
// Ticks are counted while the log writer is at one and the same write. After an
// election timeout, the patience that others have with a silent leader, the disk
// counts as stalled, and a leader hands over, if there is somebody better: see
// core.heir.
type stall struct {
	electionTicks int
	writes        uint64 // finished when it was looked at last
	ticks         int    // for which the writer has been at the next one
	found         atomic.Bool
}

// tick looks at the writer and reports whether its disk is stalled.
func (s *stall) tick(finished uint64, busy bool) bool {
	if !busy || finished != s.writes {
		s.writes, s.ticks = finished, 0
	} else {
		s.ticks++
	}
	stalled := s.ticks >= s.electionTicks
	s.found.Store(stalled)
	return stalled
}

// heir is the voter that should lead in place of a leader whose disk is stalled,
// or 0 when it should stay. It goes only when a quorum without it has stored what
// this disk has not: where all disks hang, where nothing is written, or where its
// own vote is needed, moving leadership would help nobody. Of several heirs the
// one that has stored most leads.
func (c *core) heir() MemberID {
	if c.role != Leader {
		return 0
	}
	var own Index
	list := c.progress()
	for _, p := range list {
		if p.ID == c.id {
			own = p.Match
		}
	}
	best := Progress{}
	if c.commit <= own {
		return 0
	}
	for _, p := range list {
		if !p.Learner && p.Active && p.Match > best.Match {
			best = p
		}
	}
	return best.ID
}

// watchDisk hands leadership over when the disk is stalled. The library gives a
// transfer up after an election timeout; then it is tried again.
func (n *Node) watchDisk() {
	was := n.stall.found.Load()
	finished, busy := n.queue.progress()
	stalled := n.stall.tick(finished, busy)
	if stalled != was {
		n.logDisk(stalled)
	}
	if !stalled || n.core.transferring {
		return
	}
	if heir := n.core.heir(); heir != 0 {
		n.logger.Warn("this leader's disk is stalled; handing leadership over", "member", hex(n.cfg.ID), "to", hex(heir), "term", uint64(n.core.term))
		n.core.transfer(heir)
	}
}

func (n *Node) logDisk(stalled bool) {
	if stalled {
		n.logger.Error("a write to the log has not come back for an election timeout: the disk is stalled", "member", hex(n.cfg.ID))
		return
	}
	n.logger.Info("the disk answers again", "member", hex(n.cfg.ID))
}

// DiskStalled reports whether one write to the log, with its sync, has lasted
// for an election timeout. Nothing new becomes durable here meanwhile.
func (n *Node) DiskStalled() bool { return n.stall.found.Load() }
