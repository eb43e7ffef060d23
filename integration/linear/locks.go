package linear

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

const (
	lockers     = 3
	locksAtOnce = 2
	locksLive   = 4 * time.Second
	lockTTL     = leaseTTLMin * time.Second
	renewEvery  = 300 * time.Millisecond
)

// locker takes a lock under a lease that it keeps alive, writes under its protection, and gives it back.
type locker struct{ client }

func (l *locker) run(ctx context.Context) {
	for ctx.Err() == nil {
		member := l.random.IntN(len(l.endpoints))
		n := l.random.IntN(locksAtOnce)
		lock := fmt.Sprintf("lock%03d/%d", l.recorder.Now()/int64(locksLive), n)
		lease := l.grantFor(member, leaseTTLMin)
		if lease == nil {
			wait(ctx, time.Duration(l.random.IntN(100))*time.Millisecond)
			continue
		}
		l.hold(ctx, member, lock, lease)
		wait(ctx, time.Duration(20+l.random.IntN(200))*time.Millisecond)
	}
}

// hold tries to get the lock, keeps it for a while and gives it back, unless the lease is lost before.
func (l *locker) hold(ctx context.Context, member int, lock string, lease *Lease) {
	won := Request{
		Compares: []Compare{{Key: lock, Target: OnVersion}},
		Writes:   []Write{{Key: lock, Value: fmt.Sprintf("v%d", l.values.Add(1)), Lease: lease.ID}},
		Reads:    []string{lock},
	}
	o := l.do(member, won)
	if o.Outcome != Done || !o.Answer.Succeeded {
		l.do(member, Request{Revoke: lease.ID})
		return
	}
	h := Hold{Client: l.id, Lock: lock, Lease: lease.ID, Revision: o.Answer.Revision, From: o.Return, Until: lease.Call + int64(lease.TTL)}
	release := l.recorder.Now() + l.random.Int64N(int64(5*time.Second))
	lost := false
	for now := l.recorder.Now(); ctx.Err() == nil && now < release && now < h.Until; now = l.recorder.Now() {
		if lost = l.renew(member, lease, &h); lost {
			break
		}
		l.do(member, l.protected(lock, h.Revision))
		wait(ctx, time.Duration(l.random.Int64N(int64(2*renewEvery))))
		if l.random.IntN(5) == 0 {
			member = l.random.IntN(len(l.endpoints))
		}
	}
	h.Until = min(h.Until, l.recorder.Now())
	l.recorder.AddHold(h)
	if lost {
		return
	}
	l.do(member, Request{
		Compares: []Compare{{Key: lock, Target: OnMod, Number: h.Revision}},
		Writes:   []Write{{Key: lock, Delete: true}},
		Reads:    []string{lock},
	})
}

// protected is a write that only who has the lock may do: the revision at which it was taken is the fence.
func (l *locker) protected(lock string, fence int64) Request {
	w := Write{Key: "by-" + lock, Value: fmt.Sprintf("v%d", l.values.Add(1))}
	return Request{Compares: []Compare{{Key: lock, Target: OnMod, Number: fence}}, Writes: []Write{w}, Reads: []string{lock}}
}

// renew keeps the lease alive; lost: it is no more, or may be no more.
func (l *locker) renew(member int, lease *Lease, h *Hold) (lost bool) {
	ctx, cancel := context.WithTimeout(context.Background(), requestMax)
	defer cancel()
	called := l.recorder.Now()
	ttl, err := keepAlive(ctx, pb.NewLeaseClient(l.endpoints[member].conn), lease.ID)
	told := l.recorder.Now()
	if err != nil {
		return told >= h.Until
	}
	l.recorder.Renewed(lease, Renewal{Call: called, Return: told, TTL: ttl})
	if ttl <= 0 {
		return true
	}
	if told < h.Until {
		h.Until = called + int64(lease.TTL)
	}
	return told >= h.Until
}

func keepAlive(ctx context.Context, c pb.LeaseClient, id int64) (ttl int64, err error) {
	stream, err := c.LeaseKeepAlive(ctx)
	if err != nil {
		return 0, err
	}
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
		return 0, err
	}
	a, err := stream.Recv()
	return a.GetTTL(), err
}

// CheckLocks: at no time do two clients know that they have the same lock, and a lease that is kept alive is there.
func CheckLocks(h History) []string {
	var bad []string
	byLock := map[string][]Hold{}
	for _, hold := range h.Holds {
		if hold.Until > hold.From {
			byLock[hold.Lock] = append(byLock[hold.Lock], hold)
		}
	}
	for lock, all := range byLock {
		slices.SortFunc(all, func(a, b Hold) int { return cmp.Compare(a.From, b.From) })
		for i := 1; i < len(all); i++ {
			if a, b := all[i-1], all[i]; b.From < a.Until {
				bad = append(bad, fmt.Sprintf("locks: clients %d and %d both had %s: one from %s to %s by lease %x at revision %d, the other from %s by lease %x at revision %d",
					a.Client, b.Client, lock, seconds(a.From), seconds(a.Until), a.Lease, a.Revision, seconds(b.From), b.Lease, b.Revision))
			}
		}
	}
	slices.Sort(bad)
	return append(bad, lostLeases(h)...)
}

// lostLeases are those of which a keep-alive was told, within the time that the one before had promised, that they are
// no more, though nobody had asked to revoke them.
func lostLeases(h History) (bad []string) {
	revoked := map[int64]bool{}
	for _, o := range h.Operations {
		revoked[o.Request.Revoke] = true
	}
	for _, l := range h.Leases {
		until := l.Call + int64(l.TTL)
		for _, r := range l.Renewed {
			switch {
			case r.TTL > 0:
				until = max(until, r.Call+int64(l.TTL))
			case r.Return < until && !revoked[l.ID]:
				bad = append(bad, fmt.Sprintf("locks: lease %x, promised until %s, was no more at %s", l.ID, seconds(until), seconds(r.Return)))
			}
		}
	}
	return bad
}
