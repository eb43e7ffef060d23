package raft

import (
	"context"
	"errors"
)

// transfer is a caller that waits for leadership to move.
type transfer struct {
	to   MemberID
	ctx  context.Context
	done chan error // buffered for one
}

// TransferLeader moves leadership from this member to another voter and waits
// until that is known here. The request is repeated until ctx ends, since the
// message that asks the other to take over may be lost.
func (n *Node) TransferLeader(ctx context.Context, to MemberID) error {
	t := &transfer{to: to, ctx: ctx, done: make(chan error, 1)}
	n.in.call(func(c *core) { n.beginTransfer(c, t) })
	select {
	case err := <-t.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-n.stopped:
		return ErrStopped
	}
}

// TransferAway moves leadership to the voter that is nearest to taking over,
// before this member stops. It returns nil at once when there is nothing to
// move: this member does not lead, or is the only voter.
func (n *Node) TransferAway(ctx context.Context) error {
	list, err := n.Progress(ctx)
	if errors.Is(err, ErrNotLeader) {
		return nil
	}
	if err != nil {
		return err
	}
	best := Progress{}
	for _, p := range list {
		if p.ID != n.cfg.ID && !p.Learner && p.Active && p.Match >= best.Match {
			best = p
		}
	}
	if best.ID == 0 {
		return nil
	}
	return n.TransferLeader(ctx, best.ID)
}

func (n *Node) beginTransfer(c *core, t *transfer) {
	switch {
	case c.lead == 0:
		t.done <- ErrNoLeader
	case c.role != Leader:
		t.done <- ErrNotLeader
	case !has(c.conf.Voters, t.to):
		t.done <- ErrBadTransferee
	case c.lead == t.to:
		t.done <- nil
	default:
		c.transfer(t.to)
		n.transfers = append(n.transfers, t)
	}
}

func (c *core) transfer(to MemberID) {
	c.rn.TransferLeader(uint64(to))
	c.transferring = true
}

// endTransfers answers the callers whose transfer is decided.
func (n *Node) endTransfers() {
	left := n.transfers[:0]
	for _, t := range n.transfers {
		if over, err := t.over(n.core); over {
			t.done <- err
		} else {
			left = append(left, t)
		}
	}
	clear(n.transfers[len(left):])
	n.transfers = left
}

func (t *transfer) over(c *core) (bool, error) {
	switch {
	case c.lead == t.to:
		return true, nil
	case t.ctx.Err() != nil:
		return true, t.ctx.Err()
	case c.role == Leader && !has(c.conf.Voters, t.to):
		return true, ErrBadTransferee
	case c.role != Leader && c.lead != 0:
		return true, ErrLeaderChanged
	}
	return false, nil
}

// repeatTransfers asks again for what the library gave up after an election
// timeout.
func (n *Node) repeatTransfers() {
	c := n.core
	for _, t := range n.transfers {
		if c.role == Leader && !c.transferring {
			c.transfer(t.to)
		}
	}
}
