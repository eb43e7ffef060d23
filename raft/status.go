package raft

import (
	"context"
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"
)

// Role is what a member is in its term.
type Role uint8

// The roles. A PreCandidate asks whether it could win before it disturbs anyone.
const (
	Follower     Role = Role(raft.StateFollower)
	Candidate    Role = Role(raft.StateCandidate)
	Leader       Role = Role(raft.StateLeader)
	PreCandidate Role = Role(raft.StatePreCandidate)
)

func (r Role) String() string {
	switch r {
	case Follower:
		return "follower"
	case Candidate:
		return "candidate"
	case Leader:
		return "leader"
	case PreCandidate:
		return "pre-candidate"
	}
	return fmt.Sprintf("role %d", uint8(r))
}

// Status is a member's view. Applied is what the applier has answered, possibly
// a tick ago; Last is the end of the log on this disk.
type Status struct {
	ID      MemberID
	Leader  MemberID // 0: none known
	Term    Term
	Role    Role
	Commit  Index
	Applied Index
	Last    Index
	Conf    ConfState
}

// Progress is what the leader knows of another member's log, or of its own.
type Progress struct {
	ID      MemberID
	Learner bool
	Match   Index  // known to be on that member's disk
	Next    Index  // first entry to send next
	State   string // "probe", "replicate" or "snapshot"
	Active  bool   // heard from since the last quorum check
	Paused  bool   // nothing is sent until something is heard
}

// Status is the member's view as of the last turn of the loop. It never waits.
func (n *Node) Status() Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.status
}

// Leader is the member that leads as far as is known here, or 0.
func (n *Node) Leader() MemberID { return MemberID(n.lead.Load()) }

// Changes returns a channel that is closed when the leader changes next. Take
// it before looking at Leader.
func (n *Node) Changes() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

// Progress is the leader's knowledge of all members, by ID; elsewhere
// ErrNotLeader.
func (n *Node) Progress(ctx context.Context) ([]Progress, error) {
	var list []Progress
	leader := false
	ok := n.ask(ctx, func(c *core) { list, leader = c.progress(), c.role == Leader })
	switch {
	case !ok && ctx.Err() != nil:
		return nil, ctx.Err()
	case !ok:
		return nil, ErrStopped
	case !leader:
		return nil, ErrNotLeader
	}
	return list, nil
}

func (c *core) status() Status {
	return Status{
		ID: c.id, Leader: c.lead, Term: c.term, Role: c.role,
		Commit: c.commit, Applied: Index(c.log.applied), Last: Index(c.log.last()), Conf: c.conf,
	}
}

func (c *core) progress() []Progress {
	var list []Progress
	c.rn.WithProgress(func(id uint64, typ raft.ProgressType, pr tracker.Progress) {
		list = append(list, Progress{
			ID: MemberID(id), Learner: typ == raft.ProgressTypeLearner,
			Match: Index(pr.Match), Next: Index(pr.Next), State: progressState(pr.State),
			Active: pr.RecentActive, Paused: pr.IsPaused(),
		})
	})
	return list
}

func progressState(s tracker.StateType) string {
	switch s {
	case tracker.StateReplicate:
		return "replicate"
	case tracker.StateSnapshot:
		return "snapshot"
	}
	return "probe"
}

func hex(id MemberID) string { return fmt.Sprintf("%x", uint64(id)) }
