package cluster

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/internal/process"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// If this fails, a lock is taken away from its owner too early, or a dead
// owner's lock stays for ever, when the leader dies.
func TestLeaseOutlivesLeader(t *testing.T) {
	t.Parallel()
	const ttl = 3
	e := start(t, process.Options{Size: 3})
	granted := time.Now()
	lease, err := e.client.Grant(e.ctx, ttl)
	check(t, err)
	kept, err := e.client.Grant(e.ctx, ttl)
	check(t, err)
	for key, id := range map[string]int64{"lost": lease.ID, "kept": kept.ID} {
		_, err := e.client.Put(e.ctx, key, "x", client.Lease(id))
		check(t, err)
	}
	alive := e.client.KeepAlive(e.ctx, kept.ID)
	e.leader().Kill()
	e.leader()
	elected := time.Now()
	e.goneAfter("lost", granted.Add(ttl*time.Second))
	// A new leader starts the clock anew, since it does not know what is left.
	if took, max := time.Since(elected), ttl*time.Second+2*electionTimeout+5*time.Second; took > max {
		t.Errorf("the lease was revoked %s after the election", took)
	}
	a, err := e.client.Get(e.ctx, "kept")
	if err != nil || len(a.Kvs) != 1 {
		t.Errorf("the lease that was kept alive is gone: %v", err)
	}
	select {
	case _, ok := <-alive:
		if !ok {
			t.Error("the keep-alive ended")
		}
	default:
		t.Error("no keep-alive was answered")
	}
	e.mustStartAll()
	e.checkEqual()
}

// goneAfter waits until a key is gone, which must not be before a moment.
func (e *env) goneAfter(key string, earliest time.Time) {
	e.t.Helper()
	until(e.t, key+" is gone", waitMax, func() error {
		ctx, cancel := e.brief(requestMax)
		defer cancel()
		a, err := e.client.Get(ctx, key)
		if err == nil && len(a.Kvs) > 0 {
			return errors.New("it is there")
		}
		return err
	})
	if early := time.Until(earliest); early > 0 {
		e.t.Errorf("%s is gone %s before its lease's time was up", key, early)
	}
}

// If this fails, a client that happens to talk to a follower loses its lease.
func TestKeepAliveThroughFollower(t *testing.T) {
	t.Parallel()
	const ttl = 2
	e := start(t, process.Options{Size: 3})
	_, rest := e.followers()
	c := e.at(rest[0])
	lease, err := c.Grant(e.ctx, ttl)
	check(t, err)
	_, err = c.Put(e.ctx, "held", "x", client.Lease(lease.ID))
	check(t, err)
	for end := time.Now().Add(3 * ttl * time.Second); time.Now().Before(end); pass(t, ttl*time.Second/3) {
		ctx, cancel := e.brief(waitMax)
		a, err := c.KeepAliveOnce(ctx, lease.ID)
		cancel()
		if err != nil || a.TTL != ttl {
			t.Fatalf("keep-alive through a follower: %v, %v", a, err)
		}
	}
	left, err := c.TimeToLive(e.ctx, lease.ID, true)
	if err != nil || left.TTL < 0 || left.TTL > ttl || len(left.Keys) != 1 {
		t.Errorf("time to live through a follower: %v, %v", left, err)
	}
	last := time.Now()
	e.goneAfter("held", last.Add(ttl*time.Second/2))
}

// If this fails, thousands of leases that end together stop the service, or
// some of their keys stay.
func TestManyLeasesEndAcrossRestart(t *testing.T) {
	t.Parallel()
	e := start(t, process.Options{Size: 3})
	const many = 200
	for i := range many {
		lease, err := e.client.Grant(e.ctx, 2)
		check(t, err)
		_, err = e.client.Put(e.ctx, fmt.Sprintf("many/%d", i), "x", client.Lease(lease.ID))
		check(t, err)
	}
	for _, m := range e.Members {
		m.Kill()
	}
	e.mustStartAll()
	until(t, "all keys of the leases are gone", waitMax, func() error {
		ctx, cancel := e.brief(requestMax)
		defer cancel()
		a, err := e.client.Get(ctx, "many/", client.Prefix(), client.CountOnly())
		if err == nil && a.Count > 0 {
			err = fmt.Errorf("%d are there", a.Count)
		}
		return err
	})
	for _, m := range e.Members {
		until(t, "no lease is left at "+m.Name, waitMax, func() error {
			leases, err := e.at(m).Leases.LeaseLeases(e.ctx, &pb.LeaseLeasesRequest{})
			if err == nil && len(leases.Leases) > 0 {
				err = fmt.Errorf("%d are there", len(leases.Leases))
			}
			return err
		})
	}
	e.checkEqual()
}
