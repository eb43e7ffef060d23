package server

import (
	"testing"
	"time"

	"github.com/kvorum/kvorum/raft"
)

func second(n int) time.Time { return time.Unix(1000+int64(n), 0) }

// If this fails, a lease ends too early, too late or twice.
func TestLeaseEndsWhenItsTimeIsUp(t *testing.T) {
	k := newLeaseKeeper()
	k.promote(1, nil, second(0), 0)
	k.granted(1, 10*time.Second, second(0))
	k.granted(2, 5*time.Second, second(0))
	if due, _ := k.due(second(4), time.Second); len(due) != 0 {
		t.Fatalf("%v due after 4 s", due)
	}
	if r := k.renew(1, 2, second(4)); !r.found || r.ttl != 5*time.Second {
		t.Fatalf("renewal of lease 2: %+v", r)
	}
	if due, _ := k.due(second(8), time.Second); len(due) != 0 {
		t.Fatalf("%v due after 8 s although renewed at 4 s", due)
	}
	if due, _ := k.due(second(10), 60*time.Second); len(due) != 2 || due[0] != 2 || due[1] != 1 {
		t.Fatalf("%v due after 10 s, want [2 1] in the order of their ends", due)
	}
	if due, _ := k.due(second(11), time.Second); len(due) != 0 {
		t.Errorf("%v due again while being revoked", due)
	}
	if due, _ := k.due(second(71), time.Second); len(due) != 2 {
		t.Errorf("%v due when the revoke was lost, want both again", due)
	}
}

// If this fails, a client is told that a lease was renewed which is ending.
func TestRenewalOfAnEndingLeaseWaits(t *testing.T) {
	k := newLeaseKeeper()
	k.promote(1, nil, second(0), 0)
	k.granted(1, time.Second, second(0))
	k.due(second(2), time.Minute)
	r := k.renew(1, 1, second(2))
	if !r.found || r.gone == nil {
		t.Fatalf("renewal of an ending lease: %+v, want one that waits", r)
	}
	select {
	case <-r.gone:
		t.Fatal("gone before it was revoked")
	default:
	}
	k.revoked(1)
	select {
	case <-r.gone:
	default:
		t.Fatal("not told that the lease is gone")
	}
	if r := k.renew(1, 1, second(3)); r.found || !r.leading {
		t.Errorf("renewal of a gone lease: %+v", r)
	}
}

// If this fails, leases end early because the leader changed.
func TestNewLeaderGivesFullTime(t *testing.T) {
	k := newLeaseKeeper()
	if r := k.renew(1, 1, second(0)); r.leading {
		t.Fatal("a keeper that was never promoted leads")
	}
	k.promote(1, []leaseTerm{{id: 1, ttl: 10 * time.Second, left: 10 * time.Second}, {id: 2, ttl: 100 * time.Second, left: 30 * time.Second}}, second(0), time.Second)
	if left, ttl, found, _ := k.left(1, second(0)); !found || left != 11*time.Second || ttl != 10*time.Second {
		t.Errorf("lease 1: %v left of %v, found %t", left, ttl, found)
	}
	if left, ttl, _, _ := k.left(2, second(0)); left != 31*time.Second || ttl != 100*time.Second {
		t.Errorf("checkpointed lease 2: %v left of %v", left, ttl)
	}
	k.demote()
	if due, _ := k.due(second(1000), time.Second); len(due) != 0 {
		t.Errorf("%v due at a member that does not lead", due)
	}
	k.granted(3, time.Second, second(0))
	if _, _, found, leading := k.left(3, second(0)); found || leading {
		t.Error("a member that does not lead keeps a deadline")
	}
}

// If this fails, an election with many leases ends them all in one burst.
func TestManyLeasesAreSpread(t *testing.T) {
	k := newLeaseKeeper()
	var terms []leaseTerm
	for i := range 3000 {
		terms = append(terms, leaseTerm{id: int64(i + 1), ttl: 10 * time.Second, left: 10 * time.Second})
	}
	k.promote(1, terms, second(0), 0)
	if n := countDue(k.due(second(11), time.Minute)); n > promotePerSecond+2 {
		t.Errorf("%d leases due within a second, want at most about %d", n, promotePerSecond)
	}
	total := 0
	for s := 11; s < 20; s++ {
		total += countDue(k.due(second(s), time.Hour))
	}
	if total < 2000 {
		t.Errorf("only %d of the rest due within 8 s", total)
	}
}

func countDue(ids []int64, _ raft.Term) int { return len(ids) }
