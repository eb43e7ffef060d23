package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/process"
	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/raft"
)

// startMembers starts a cluster that ends with the test.
func startMembers(t *testing.T, n int, change func(*Config)) []*testMember {
	t.Helper()
	urls := make([]string, n)
	var initial []string
	for i, port := range must[[]int](t)(process.FreePorts(n)) {
		urls[i] = "http://" + process.Address(port)
		initial = append(initial, fmt.Sprintf("m%d=%s", i, urls[i]))
	}
	members := make([]*testMember, n)
	for i := range members {
		members[i] = startMember(t, func(c *Config) {
			c.Name, c.InitialCluster = fmt.Sprintf("m%d", i), strings.Join(initial, ",")
			c.ListenPeerURLs, c.AdvertisePeerURLs = mustURLs(urls[i]), mustURLs(urls[i])
			if change != nil {
				change(c)
			}
		})
	}
	return members
}

// leaderOf waits until all members see the same leader.
func leaderOf(members []*testMember) *testMember {
	var leader *testMember
	members[0].eventually("one leader", func() error {
		for _, m := range members {
			if m.node.Leader() == 0 || m.node.Leader() != members[0].node.Leader() {
				return fmt.Errorf("%x sees %x", uint64(m.self), uint64(m.node.Leader()))
			}
			if raft.MemberID(m.self) == m.node.Leader() {
				leader = m
			}
		}
		if leader == nil {
			return fmt.Errorf("%x leads, which is none of them", uint64(members[0].node.Leader()))
		}
		return nil
	})
	return leader
}

// moveLeader makes another member lead.
func moveLeader(t *testing.T, members []*testMember) {
	t.Helper()
	leader := leaderOf(members)
	for _, m := range members {
		if m != leader {
			members[0].eventually("leadership moves", func() error { return leader.MoveLeader(m.ctx, uint64(m.self)) })
			if got := leaderOf(members); got != m {
				t.Fatalf("%x leads, want %x", uint64(got.self), uint64(m.self))
			}
			return
		}
	}
}

func (m *testMember) ttl(id int64) int64 {
	m.t.Helper()
	left := int64(-1)
	m.eventually("time to live", func() error {
		r, err := pb.NewLeaseClient(m.conn).LeaseTimeToLive(m.ctx, &pb.LeaseTimeToLiveRequest{ID: id})
		if err == nil {
			left = r.TTL
		}
		return err
	})
	return left
}

// renew keeps a lease alive once.
func (m *testMember) renew(id int64) {
	m.t.Helper()
	stream := must[pb.Lease_LeaseKeepAliveClient](m.t)(pb.NewLeaseClient(m.conn).LeaseKeepAlive(m.ctx))
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
		m.t.Fatal(err)
	}
	if r := must[*pb.LeaseKeepAliveResponse](m.t)(stream.Recv()); r.TTL != leaseTTL {
		m.t.Errorf("renewed for %d s", r.TTL)
	}
	if err := stream.CloseSend(); err != nil {
		m.t.Error(err)
	}
}

const leaseTTL = 100

func (m *testMember) grant(id int64) {
	m.t.Helper()
	must[*pb.LeaseGrantResponse](m.t)(pb.NewLeaseClient(m.conn).LeaseGrant(m.ctx, &pb.LeaseGrantRequest{ID: id, TTL: leaseTTL}))
}

// awaitTTL lets a lease run until so much is left.
func (m *testMember) awaitTTL(id, left int64) {
	m.t.Helper()
	m.eventually("the lease runs", func() error {
		if now := m.ttl(id); now > left {
			return fmt.Errorf("%d s left", now)
		}
		return nil
	})
}

// awaitCheckpoint waits until the member's state says that at most so much is
// left.
func (m *testMember) awaitCheckpoint(id mvcc.LeaseID, left int64) {
	m.t.Helper()
	m.eventually("a checkpoint", func() error {
		if l, _ := m.machine.Lease(id); l.RemainingTTL == 0 || l.RemainingTTL > left {
			return fmt.Errorf("state has %+v", l)
		}
		return nil
	})
}

func checkpointing(c *Config) {
	c.FeatureGates = map[Feature]bool{FeatureLeaseCheckpoint: true, FeatureLeaseCheckpointPersist: true}
	c.checkpointEvery = 50 * time.Millisecond
}

// If this fails, a lease that is longer than its leaders last never ends; or a
// renewed one ends early under a new leader.
func TestLeaseGoesOnUnderANewLeader(t *testing.T) {
	for _, gate := range []bool{true, false} {
		t.Run(fmt.Sprintf("checkpoints=%t", gate), func(t *testing.T) {
			t.Parallel()
			members := startMembers(t, 3, func(c *Config) {
				checkpointing(c)
				c.FeatureGates[FeatureLeaseCheckpoint] = gate
				c.FeatureGates[FeatureLeaseCheckpointPersist] = gate
			})
			m := members[0]
			m.grant(7)
			m.grant(8)
			m.awaitTTL(7, leaseTTL-3)
			for _, m := range members {
				if gate {
					m.awaitCheckpoint(7, leaseTTL-3)
				}
			}
			moveLeader(t, members)
			left := m.ttl(7)
			if jumped := left >= leaseTTL-1; jumped == gate {
				t.Errorf("%d of %d s are left under a new leader", left, leaseTTL)
			}
			renewed := time.Now()
			m.renew(8)
			for range members {
				moveLeader(t, members)
				if left := m.ttl(8); left < leaseTTL-int64(time.Since(renewed)/time.Second)-2 {
					t.Errorf("%d s are left of a lease renewed %v ago", left, time.Since(renewed))
				}
			}
		})
	}
}

// If this fails, a restart of the cluster gives every lease its full time again.
func TestCheckpointSurvivesRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(c *Config) { checkpointing(c); c.DataDir = dir }
	m := startMember(t, in)
	m.grant(7)
	m.awaitTTL(7, leaseTTL-3)
	m.awaitCheckpoint(7, leaseTTL-2)
	m.stop()
	m = startMember(t, in)
	if left := m.ttl(7); left >= leaseTTL-1 {
		t.Errorf("%d of %d s are left after a restart", left, leaseTTL)
	}
}

// If this fails, a renewal overtakes the checkpoint that it must take back, and
// the lease ends early under the next leader.
func TestRenewalWaitsForCheckpoint(t *testing.T) {
	k := newLeaseKeeper()
	k.promote(1, []leaseTerm{{id: 3, ttl: time.Hour, left: time.Minute, checkpointed: true}}, second(0), 0)
	k.granted(1, time.Hour, second(0))
	k.granted(2, time.Minute, second(0))
	if ids := k.checkpointable(10*time.Minute, second(10)); len(ids) != 1 || ids[0] != 1 {
		t.Fatalf("to be checkpointed are %v, want the long one", ids)
	}
	if r := k.renew(1, 1, second(10)); r.checkpointed {
		t.Error("a lease without a checkpoint has one to take back")
	}
	if r := k.renew(1, 3, second(10)); !r.checkpointed || r.proposing != nil {
		t.Errorf("renewal of a lease that had a checkpoint: %+v", r)
	}
	all := k.beginCheckpoint([]int64{1, 99}, second(70))
	if len(all) != 1 || all[0].ID != 1 || all[0].Remaining_TTL != 3540 {
		t.Fatalf("checkpoint: %v", all)
	}
	r := k.renew(1, 1, second(80))
	if !r.checkpointed || r.proposing == nil {
		t.Fatalf("renewal while a checkpoint is under way: %+v", r)
	}
	select {
	case <-r.proposing:
		t.Error("over before its end")
	default:
	}
	k.endCheckpoint()
	<-r.proposing
	k.checkpointed(1, 0)
	if r := k.renew(1, 1, second(90)); r.checkpointed {
		t.Error("taken back twice")
	}
}
