package server

import (
	"container/heap"
	"slices"
	"sync"
	"time"

	"github.com/kvorum/kvorum/internal/plant"
	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/server/state"
)

// Lease expiry. Only the leader keeps deadlines, in memory: the replicated
// state knows leases but no clock. A new leader gives every lease its full time
// anew, or what its last checkpoint said, so a lease may live longer than its TTL
// but never shorter.
const (
	leaseTick         = 100 * time.Millisecond
	revokesPerTick    = 1200 // 12,000 a second, which take about half a CPU
	promoteSpreadFrom = 1000 // with more leases than this…
	promotePerSecond  = 750  // …at most so many may end in one second after an election
)

// leaseKeeper finds the leases whose time is up, by a heap.
type leaseKeeper struct {
	mu      sync.Mutex
	leading bool
	term    raft.Term // that it leads, or has led
	items   map[int64]*leaseItem
	heap    leaseHeap

	proposing chan struct{} // closed when the checkpoint under way is over; nil: none
}

type leaseItem struct {
	id       int64
	ttl      time.Duration
	deadline time.Time // when revoking: when to try again
	revoking bool
	gone     chan struct{} // made by the first renewal that must wait for the end
	place    int           // in the heap

	checkpointed bool // the replicated state says, or will say, that less than ttl is left
}

type leaseHeap []*leaseItem

func (h leaseHeap) Len() int           { return len(h) }
func (h leaseHeap) Less(i, j int) bool { return h[i].deadline.Before(h[j].deadline) }
func (h leaseHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}
func (h *leaseHeap) Push(x any) {
	item := x.(*leaseItem)
	item.place = len(*h)
	*h = append(*h, item)
}
func (h *leaseHeap) Pop() any {
	old := *h
	item := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return item
}

// leaseTerm is a lease as the keeper needs it: its TTL and what it had left.
type leaseTerm struct {
	id        int64
	ttl, left time.Duration

	checkpointed bool
}

func newLeaseKeeper() *leaseKeeper { return &leaseKeeper{items: map[int64]*leaseItem{}} }

// promote starts keeping deadlines for all leases, in the term of the leader that
// this member is. Every lease gets what it has left plus extend; many leases are
// spread so that they do not all end at once.
func (k *leaseKeeper) promote(term raft.Term, leases []leaseTerm, now time.Time, extend time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.clear()
	k.leading, k.term = true, term
	for _, l := range leases {
		k.set(l.id, l.ttl, now.Add(l.left+extend)).checkpointed = l.checkpointed
	}
	if len(leases) > promoteSpreadFrom {
		k.spread()
	}
}

// promoteIn is promote by the leader of a term, once: a later empty entry of the
// term (a membership change that the leader refused) changes nothing. Deadlines
// that began anew would let a lease be renewed whose revoke is on its way. Only
// the applier calls it.
func (k *leaseKeeper) promoteIn(term raft.Term, leases []leaseTerm, now time.Time, extend time.Duration) {
	k.mu.Lock()
	known := k.leading && k.term == term && !plant.Here(plant.PromoteAgain)
	k.mu.Unlock()
	if !known {
		k.promote(term, leases, now, extend)
	}
}

// spread moves deadlines later, in their order, until no second has more than
// promotePerSecond of them.
func (k *leaseKeeper) spread() {
	const gap = time.Second / promotePerSecond
	inOrder := make(leaseHeap, 0, len(k.heap))
	for len(k.heap) > 0 {
		inOrder = append(inOrder, heap.Pop(&k.heap).(*leaseItem))
	}
	for i, item := range inOrder {
		if i > 0 {
			if earliest := inOrder[i-1].deadline.Add(gap); item.deadline.Before(earliest) {
				item.deadline = earliest
			}
		}
		heap.Push(&k.heap, item)
	}
}

// demote forgets all deadlines: another member is the leader.
func (k *leaseKeeper) demote() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.clear()
	k.leading = false
}

func (k *leaseKeeper) clear() {
	for _, item := range k.items {
		item.release()
	}
	k.items, k.heap = map[int64]*leaseItem{}, nil
}

func (i *leaseItem) release() {
	if i.gone != nil {
		close(i.gone)
		i.gone = nil
	}
}

func (k *leaseKeeper) set(id int64, ttl time.Duration, deadline time.Time) *leaseItem {
	if item := k.items[id]; item != nil {
		item.ttl, item.deadline, item.revoking = ttl, deadline, false
		heap.Fix(&k.heap, item.place)
		return item
	}
	item := &leaseItem{id: id, ttl: ttl, deadline: deadline}
	k.items[id] = item
	heap.Push(&k.heap, item)
	return item
}

// granted is called by the applier for every new lease.
func (k *leaseKeeper) granted(id int64, ttl time.Duration, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.leading {
		k.set(id, ttl, now.Add(ttl))
	}
}

// revoked is called by the applier when a lease has ended.
func (k *leaseKeeper) revoked(id int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if item := k.items[id]; item != nil {
		delete(k.items, id)
		heap.Remove(&k.heap, item.place)
		item.release()
	}
}

// renewal is what a renewal came to.
type renewal struct {
	leading bool
	found   bool
	ttl     time.Duration
	gone    <-chan struct{} // set while the lease is being revoked: wait for it

	checkpointed bool            // its checkpoint must be taken back first…
	proposing    <-chan struct{} // …after this, if set
}

// renew gives a lease its full time from now, by the leader of the term. Deadlines
// that are left of an earlier term say nothing: the leader between may have ended
// the lease by an entry that is not applied here yet.
func (k *leaseKeeper) renew(term raft.Term, id int64, now time.Time) renewal {
	k.mu.Lock()
	defer k.mu.Unlock()
	item := k.items[id]
	switch {
	case !k.leading || k.term != term:
		return renewal{}
	case item == nil:
		return renewal{leading: true}
	case item.revoking || !now.Before(item.deadline):
		if item.gone == nil {
			item.gone = make(chan struct{})
		}
		return renewal{leading: true, found: true, gone: item.gone}
	}
	item.deadline = now.Add(item.ttl)
	heap.Fix(&k.heap, item.place)
	r := renewal{leading: true, found: true, ttl: item.ttl, checkpointed: item.checkpointed}
	if r.checkpointed {
		r.proposing = k.proposing
	}
	return r
}

// left is the time that a lease has, and its TTL.
func (k *leaseKeeper) left(id int64, now time.Time) (left, ttl time.Duration, found, leading bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	item := k.items[id]
	if item == nil || !k.leading {
		return 0, 0, false, k.leading
	}
	if item.revoking {
		return 0, item.ttl, true, true
	}
	return max(0, item.deadline.Sub(now)), item.ttl, true, true
}

// sort puts leases in the order of their deadlines, if they are kept here. One that is not kept is new or gone; it comes
// last.
func (k *leaseKeeper) sort(leases []state.Lease) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.leading {
		return
	}
	slices.SortStableFunc(leases, func(a, b state.Lease) int {
		x, y := k.items[int64(a.ID)], k.items[int64(b.ID)]
		switch {
		case x == nil && y == nil:
			return 0
		case x == nil:
			return 1
		case y == nil:
			return -1
		}
		return x.deadline.Compare(y.deadline)
	})
}

// due takes up to revokesPerTick leases whose time is up and marks them as
// being revoked; one that is still there at now+retry is due again. In another
// term than the one returned, this says nothing.
func (k *leaseKeeper) due(now time.Time, retry time.Duration) (ids []int64, term raft.Term) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.heap) > 0 && len(ids) < revokesPerTick && k.heap[0].isDue(now) {
		item := k.heap[0]
		ids = append(ids, item.id)
		item.revoking = true
		item.deadline = now.Add(retry)
		heap.Fix(&k.heap, 0)
	}
	return ids, k.term
}

// ledTerm is the term of the deadlines that are kept here, or were last.
func (k *leaseKeeper) ledTerm() raft.Term {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.term
}

// isDue tells whether the lease's time is up.
func (i *leaseItem) isDue(now time.Time) bool {
	if plant.Here(plant.ExpireEarly) && !i.revoking {
		now = now.Add(i.ttl / 2)
	}
	return !now.Before(i.deadline)
}
