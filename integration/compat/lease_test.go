package compat

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Sessions, locks and service discovery rest on leases: their answers must say what etcd's say.
func TestLease(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		lease, err := e.Grant(e.ctx, 100)
		if err != nil || lease.TTL != 100 || lease.ID <= 0 {
			t.Fatalf("grant: %v, %v", lease, err)
		}
		e.put("a", "v", clientv3.WithLease(lease.ID))
		e.put("b", "v", clientv3.WithLease(lease.ID))
		state, err := e.TimeToLive(e.ctx, lease.ID, clientv3.WithAttachedKeys())
		if err != nil || state.GrantedTTL != 100 || state.TTL > 100 || state.TTL < 60 || len(state.Keys) != 2 {
			t.Errorf("time to live: %v, %v", state, err)
		}
		if bare, err := e.TimeToLive(e.ctx, lease.ID); err != nil || len(bare.Keys) != 0 {
			t.Errorf("time to live without keys: %v, %v", bare, err)
		}
		once, err := e.KeepAliveOnce(e.ctx, lease.ID)
		if err != nil || once.TTL != 100 {
			t.Errorf("keep-alive: %v, %v", once, err)
		}
		list, err := e.Leases(e.ctx)
		if err != nil || !slices.ContainsFunc(list.Leases, func(l clientv3.LeaseStatus) bool { return l.ID == lease.ID }) {
			t.Errorf("leases: %v, %v", list, err)
		}
		short, err := e.Grant(e.ctx, 1)
		if err != nil || short.TTL != 2 {
			t.Errorf("a lease below the least TTL: %v, %v; want 2 s", short, err)
		}
		unknown, err := e.TimeToLive(e.ctx, 4242)
		if err != nil || unknown.TTL != -1 || unknown.GrantedTTL != 0 {
			t.Errorf("time to live of an unknown lease: %v, %v", unknown, err)
		}
	})
}

// Revoking must delete the lease's keys and no others, all in one revision.
func TestLeaseRevoke(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		lease, err := e.Grant(e.ctx, 600)
		if err != nil {
			t.Fatal(err)
		}
		events := e.Watch(e.ctx, e.prefix, clientv3.WithPrefix(), clientv3.WithFilterPut(), clientv3.WithCreatedNotify())
		next(t, events)
		for _, name := range []string{"c", "a", "b", "moved"} {
			e.put(name, "v", clientv3.WithLease(lease.ID))
		}
		before := e.put("moved", "v")
		if _, err := e.Revoke(e.ctx, lease.ID); err != nil {
			t.Fatal(err)
		}
		answer := next(t, events)
		if got := e.describe(answer.Events); got != "DELETE a, DELETE b, DELETE c" {
			t.Errorf("events %s", got)
		}
		for _, event := range answer.Events {
			if event.Kv.ModRevision != before+1 {
				t.Errorf("%s was deleted at %d, want %d", event.Kv.Key, event.Kv.ModRevision, before+1)
			}
		}
		if names := e.names(e.get("", clientv3.WithPrefix())); !slices.Equal(names, []string{"moved"}) {
			t.Errorf("left: %v", names)
		}
		_, err = e.Revoke(e.ctx, lease.ID)
		wantError(t, err, leaseNotFound)
	})
}

// A dead client's keys must go when its lease ends, not earlier, and a living client's must stay.
func TestLeaseExpiry(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		const ttl = 2
		events := e.Watch(e.ctx, e.prefix, clientv3.WithPrefix(), clientv3.WithFilterPut(), clientv3.WithCreatedNotify())
		next(t, events)
		kept, err := e.Grant(e.ctx, ttl)
		if err != nil {
			t.Fatal(err)
		}
		e.put("kept", "v", clientv3.WithLease(kept.ID))
		renewals, err := e.KeepAlive(e.ctx, kept.ID)
		if err != nil {
			t.Fatal(err)
		}
		started := time.Now()
		lost, err := e.Grant(e.ctx, ttl)
		if err != nil {
			t.Fatal(err)
		}
		e.put("lost", "v", clientv3.WithLease(lost.ID))
		if got := e.describe(collect(t, events, 1)); got != "DELETE lost" {
			t.Errorf("events %s", got)
		}
		if took := time.Since(started); took < ttl*time.Second || took > 10*time.Second {
			t.Errorf("a lease of %d s ended after %s", ttl, took)
		}
		for range 3 {
			if renewal := <-renewals; renewal == nil || renewal.TTL != ttl {
				t.Fatalf("renewal %v", renewal)
			}
		}
		if e.get("kept").Count != 1 {
			t.Error("a lease that was kept alive ended")
		}
	})
}

// A lease granted on one member must be known on all, at once.
func TestLeaseOnEveryMember(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		lease, err := e.Grant(e.ctx, 300)
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range e.cluster.Members {
			client := newClient(t, m.Endpoint())
			if _, err := client.Put(e.ctx, e.key(fmt.Sprint(i)), "v", clientv3.WithLease(lease.ID)); err != nil {
				t.Errorf("put through %s: %v", m.Name, err)
			}
			if once, err := client.KeepAliveOnce(e.ctx, lease.ID); err != nil || once.TTL != 300 {
				t.Errorf("keep-alive through %s: %v, %v", m.Name, once, err)
			}
			state, err := client.TimeToLive(e.ctx, lease.ID, clientv3.WithAttachedKeys())
			if err != nil || len(state.Keys) != i+1 || !strings.HasPrefix(string(state.Keys[0]), e.prefix) {
				t.Errorf("time to live through %s: %v, %v", m.Name, state, err)
			}
		}
	})
}
