package sim

import (
	"fmt"

	"github.com/kvorum/kvorum/mvcc"
	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/server/state"
)

// applied is an entry and what it came to.
type applied struct {
	index raft.Index
	res   state.Result
}

// apply does some of what the applier has to do next.
func (m *member) apply() error {
	if !m.busy {
		if m.batch, m.busy = m.node.NextApply(); !m.busy {
			return nil
		}
		m.pos = 0
		if m.sim.chance(0.2 + m.sim.swarm.stall) {
			return nil // the rest of the world goes on before it begins
		}
	}
	if m.batch.Snapshot != nil {
		return m.install(*m.batch.Snapshot)
	}
	for n := 1 + m.sim.rng.IntN(10); n > 0 && m.pos < len(m.batch.Entries); n-- {
		if err := m.applyEntry(m.batch.Entries[m.pos]); err != nil {
			return err
		}
		if m.run == nil {
			return nil
		}
		m.pos++
	}
	if m.pos < len(m.batch.Entries) {
		return nil
	}
	last := m.batch.Entries[len(m.batch.Entries)-1]
	m.publish()
	if m.run == nil {
		return nil // removed
	}
	m.offerSnapshot(last)
	m.node.Applied(m.batch)
	m.batch, m.busy = raft.Apply{}, false
	return nil
}

func (m *member) applyEntry(e raft.Entry) error {
	if m.handed == 0 && uint64(e.Index) > m.store.Applied().Index+1 || m.handed != 0 && e.Index != m.handed+1 {
		return fmt.Errorf("entry %d comes after %d (started with %d)", e.Index, m.handed, m.bootApplied)
	}
	m.handed = e.Index
	if e.Index > m.disk.synced {
		return fmt.Errorf("entry %d is applied, the log is synced to %d", e.Index, m.disk.synced)
	}
	at := mvcc.Applied{Index: uint64(e.Index), Term: uint64(e.Term)}
	var res state.Result
	var err error
	if e.Kind == raft.EntryConfChange {
		res, err = m.applyConfChange(at, e)
	} else {
		res = m.machine.Apply(at, e.Data)
		if len(e.Data) == 0 {
			m.promoteLeases(e.Term)
		}
	}
	if err != nil {
		return err
	}
	if !res.Skipped {
		if err := m.sim.truth.checkResult(e.Index, res); err != nil {
			return err
		}
	}
	m.results = append(m.results, applied{e.Index, res})
	if e.Index%checkEvery == 0 && !res.Skipped {
		m.publish()
		if m.run == nil {
			return nil
		}
		return m.checkState()
	}
	return nil
}

// applyConfChange changes the members in the state and then in raft.
func (m *member) applyConfChange(at mvcc.Applied, e raft.Entry) (state.Result, error) {
	cc, err := raft.DecodeConfChange(e.Data)
	if err != nil {
		return state.Result{}, err
	}
	m.confIndex = at.Index
	r := m.machine.ApplyConfChange(at, stateChange(cc))
	if !r.TellRaft(at.Index, m.bootApplied) {
		m.node.ApplyConfChange(nil)
		return r, m.checkVoters()
	}
	if at.Index <= m.bootApplied {
		return r, fmt.Errorf("raft hears again of membership change %d; it was started with the members as of %d", at.Index, m.bootApplied)
	}
	conf := m.node.ApplyConfChange(&cc)
	m.sim.counts.Conf++
	if err := m.sim.truth.checkConf(at.Index, conf); err != nil {
		return r, err
	}
	return r, m.checkVoters()
}

// checkVoters compares the members that raft counts with those of the state.
func (m *member) checkVoters() error {
	have, want := confText(m.node.ApplyConfChange(nil)), confText(raftConf(m.machine.ConfState()))
	if have != want {
		return fmt.Errorf("raft counts the members %s, the state has %s", have, want)
	}
	return nil
}

func stateChange(cc raft.ConfChange) state.ConfChange {
	return state.ConfChange{
		ID: cc.ID, Kind: state.ConfChangeKind(cc.Kind), Member: state.MemberID(cc.Member), Context: cc.Context,
	}
}

// publish makes what was applied visible and answers those who wait for it.
func (m *member) publish() {
	m.store.Publish()
	results := m.results
	m.results = nil
	for _, a := range results {
		for _, change := range a.res.Leases {
			m.leases.Follow(change, m.now())
		}
		if asked, waits := m.waiting[a.res.RequestID]; waits {
			delete(m.waiting, a.res.RequestID)
			m.sim.acknowledge(a)
			if err := checkAnswer(m.store, asked, a.res); err != nil {
				m.wrong = err
			}
		}
		if a.res.Member != nil && m.followMember(*a.res.Member) {
			return
		}
	}
}

func (s *Sim) acknowledge(a applied) {
	s.truth.acked[a.res.RequestID] = true
	s.truth.ackedAt[a.res.RequestID] = uint64(a.index)
	s.floor = max(s.floor, a.index)
	s.counts.Acked++
}

// followMember keeps the links; true: this member itself is out.
func (m *member) followMember(change state.MemberChange) (out bool) {
	id := raft.MemberID(change.Member.ID)
	switch {
	case change.Kind == state.MemberRemoved && id == m.id:
		m.stopRemoved()
		return true
	case change.Kind == state.MemberRemoved:
		delete(m.links, id)
	case id != m.id:
		m.links[id] = true
	}
	return false
}

// pendingRead is a reader that waits.
type pendingRead struct{ index, floor raft.Index }

// read begins a linearizable read.
func (m *member) read() {
	floor := m.sim.floor
	if solo, ok := m.node.SoloIndex(); ok {
		m.awaitIndex(solo, floor)
	}
	m.node.ReadIndex(func(index raft.Index, err error) {
		if err == nil && m.run != nil {
			m.awaitIndex(index, floor)
		}
	})
}

func (m *member) awaitIndex(index, floor raft.Index) {
	if index < floor {
		m.wrong = fmt.Errorf("stale read: index %d, but %d was seen before", index, floor)
	}
	m.reads = append(m.reads, pendingRead{index, floor})
}

// answerReads answers the readers whose index is applied.
func (m *member) answerReads() error {
	left := m.reads[:0]
	for _, r := range m.reads {
		at := raft.Index(m.store.Applied().Index)
		if at < r.index {
			left = append(left, r)
			continue
		}
		rev, err := m.sim.truth.compareRead(m.store, m.sim.drawRange(0))
		if err != nil {
			return fmt.Errorf("read at index %d: %w", r.index, err)
		}
		if want := m.sim.truth.revs[r.floor]; rev < want {
			return fmt.Errorf("stale read: revision %d at entry %d, but %d (entry %d) was seen before", rev, at, want, r.floor)
		}
		m.sim.floor = max(m.sim.floor, at)
		m.sim.counts.Reads++
	}
	m.reads = left
	return nil
}

// readOld reads at any revision, without waiting for anyone.
func (m *member) readOld() error {
	first, now := max(0, int64(m.store.CompactRevision())-2), int64(m.store.Revision())
	rev := first + m.sim.rng.Int64N(now-first+2)
	_, err := m.sim.truth.compareRead(m.store, m.sim.drawRange(rev))
	m.sim.counts.OldReads++
	return err
}
