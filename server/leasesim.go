package server

import (
	"time"

	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/server/state"
)

// LeaseClock is the part of a member that decides when leases end, without the
// goroutines and the clock around it: whoever holds it says what time it is. It
// is for simulations.
type LeaseClock struct{ keeper *leaseKeeper }

// NewLeaseClock is that of a member that does not lead.
func NewLeaseClock() *LeaseClock { return &LeaseClock{newLeaseKeeper()} }

// Promote starts keeping deadlines for all leases, as a new leader does.
func (c *LeaseClock) Promote(term raft.Term, leases []state.Lease, now time.Time, extend time.Duration) {
	c.keeper.promoteIn(term, termsOf(leases), now, extend)
}

// Demote forgets all deadlines.
func (c *LeaseClock) Demote() { c.keeper.demote() }

// Follow takes what the state machine has done to a lease.
func (c *LeaseClock) Follow(change state.LeaseChange, now time.Time) {
	switch id := int64(change.Lease.ID); change.Kind {
	case state.LeaseGranted:
		c.keeper.granted(id, time.Duration(change.Lease.TTL)*time.Second, now)
	case state.LeaseRevoked:
		c.keeper.revoked(id)
	case state.LeaseCheckpointed:
		c.keeper.checkpointed(id, change.Lease.RemainingTTL)
	}
}

// Renew gives a lease its full time again, by the leader of the term; false: it
// cannot be renewed here and now.
func (c *LeaseClock) Renew(term raft.Term, id int64, now time.Time) bool {
	r := c.keeper.renew(term, id, now)
	return r.leading && r.found && r.gone == nil
}

// Due takes the leases to revoke now; those that are still there after retry are
// due again. They are to be proposed in the term.
func (c *LeaseClock) Due(now time.Time, retry time.Duration) (raft.Term, []int64) {
	ids, term := c.keeper.due(now, retry)
	return term, ids
}
