package sim

import (
	"fmt"
	"time"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/server/state"
)

// tickEvery is how long a tick of raft takes by a member's own clock.
const tickEvery = 100 * time.Millisecond

// retryRevoke is when a revoke that did not come about is proposed again.
const retryRevoke = 3 * time.Second

// pass lets time go on by a little, so that each member ticks about once in 14
// of its own turns; in a storm in three.
func (s *Sim) pass() {
	mean := tickEvery * 7 / 100 / time.Duration(max(1, s.alive()))
	if s.storm {
		mean *= 4
	}
	s.world += time.Duration(s.rng.Int64N(int64(2*mean) + 1))
}

func (s *Sim) alive() (n int) {
	for _, m := range s.members {
		if m.run != nil {
			n++
		}
	}
	return n
}

// now is the member's own clock, which drifts.
func (m *member) now() time.Time {
	return time.Unix(1e9, 0).Add(time.Duration(float64(m.sim.world) * m.pace))
}

// ticks lets raft hear of the time. As with a real ticker, ticks that came
// while the member was busy are one.
func (m *member) ticks() {
	if now := m.now(); !now.Before(m.nextTick) {
		m.node.Tick()
		m.nextTick = now.Add(tickEvery)
	}
}

// leaseFirst is the lowest id of the leases that clients keep alive; nobody
// else revokes or checkpoints these.
const leaseFirst = 1000

// leasesKept is how many of them there are at a time.
const leasesKept = 6

// kept is one of the leases that clients keep alive.
func (s *Sim) kept() int64 { return s.leases[s.rng.IntN(leasesKept)] }

// promise is what the client of a lease may rely on.
type promise struct {
	ttl   time.Duration
	until time.Duration // of the world's time
	ended bool
}

// keep renews a lease at a member that takes itself for the leader, or asks for
// a new one.
func (m *member) keep() {
	s := m.sim
	id := s.kept()
	if p := s.promises[id]; p != nil && p.ended {
		s.leases[id%leasesKept] += leasesKept // no id is used twice
		return
	} else if p != nil {
		m.renew(id, p)
		return
	}
	// A second grant would make the lease again after a first revoke of it, for a second revoke to end.
	if s.asked[id] {
		if s.chance(0.05) { // it may have been lost
			s.leases[id%leasesKept] += leasesKept
		}
		return
	}
	r := &pb.InternalRaftRequest{LeaseGrant: &pb.LeaseGrantRequest{ID: id, TTL: 2 + s.rng.Int64N(4)}}
	if data, request := s.encode(r); m.node.Propose(data) == 1 {
		m.waiting[request] = r
		s.asked[id] = true
	}
}

// renew counts only at the leader of the newest term: what one says that was
// deposed and does not know it yet is bounded by its election timeout only.
func (m *member) renew(id int64, p *promise) {
	s := m.sim
	if st := m.node.Status(); st.Role != raft.Leader || st.Term < s.newest {
		return
	}
	if m.store.Applied().Index < uint64(m.node.Status().Commit) || !m.leases.Renew(m.node.Status().Term, id, m.now()) {
		return
	}
	p.until = max(p.until, s.world+s.atLeast(p.ttl))
	s.counts.Renewed++
}

// atLeast is how long a time is by a clock that runs as fast as any may.
func (s *Sim) atLeast(d time.Duration) time.Duration {
	return time.Duration(float64(d) / (1 + s.swarm.drift))
}

// expire takes the leases whose time is up and proposes to revoke them, at once
// or when the goroutine that does gets on.
func (m *member) expire() {
	s := m.sim
	term, ids := m.leases.Due(m.now(), retryRevoke)
	for _, id := range ids {
		data, _ := s.encode(&pb.InternalRaftRequest{LeaseRevoke: &pb.LeaseRevokeRequest{ID: id}})
		m.due = append(m.due, revoke{term, data})
	}
	if len(m.due) == 0 || m.stuck || s.chance(s.swarm.stall) {
		return
	}
	for len(m.due) > 0 && m.node.ProposeIn(m.due[0].term, m.due[0].data) == 1 {
		m.due = m.due[1:]
	}
}

// revoke is a command to end a lease, by the leader of a term.
type revoke struct {
	term raft.Term
	data []byte
}

// followPromises keeps what clients may rely on, as entries are committed.
func (s *Sim) followPromises(res state.Result) error {
	for _, change := range res.Leases {
		id := int64(change.Lease.ID)
		if id < leaseFirst {
			continue
		}
		p := s.promises[id]
		switch change.Kind {
		case state.LeaseGranted:
			ttl := time.Duration(change.Lease.TTL) * time.Second
			s.promises[id] = &promise{ttl: ttl, until: s.world + s.atLeast(ttl)}
		case state.LeaseRevoked:
			if s.world < p.until {
				return fmt.Errorf("lease %d of %v ended %v early", id, p.ttl, p.until-s.world)
			}
			p.ended = true
			s.counts.Expired++
		}
	}
	return nil
}

// followLeader forgets the deadlines once another leads, at once or when the
// goroutine that does gets on.
func (m *member) followLeader() {
	if m.node.Status().Leader != m.id && !m.stuck && !m.sim.chance(m.sim.swarm.stall) {
		m.leases.Demote()
	}
}

// promoteLeases starts the leases' clock as the applier of a server does.
func (m *member) promoteLeases(term raft.Term) {
	if st := m.node.Status(); st.Leader == m.id && st.Term == term {
		m.leases.Promote(term, m.machine.Leases(), m.now(), time.Duration(m.sim.election)*tickEvery)
	}
}
