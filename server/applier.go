package server

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/kvorum/kvorum/internal/crash"
	"github.com/kvorum/kvorum/internal/plant"
	"github.com/kvorum/kvorum/mvcc"
	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/raft/wal"
	"github.com/kvorum/kvorum/server/state"
)

// applier is the one goroutine that changes the state: it takes committed
// entries from raft in order, runs them through the machine, publishes a batch
// at once, and only then wakes those who wait for it.
type applier struct {
	*Server
	results []state.Result // of the batch at hand; reused
	// Entries up to here were in the database at start. Raft was started with
	// the membership as of here, so it does not hear of their changes again.
	bootApplied   uint64
	told          versionsTold
	forceSnapshot bool // of the log, though not due
}

// run applies until ctx ends or the state is beyond help.
func (a *applier) run(ctx context.Context) error {
	for {
		select {
		case work := <-a.node.Applies():
			if err := a.apply(work); err != nil {
				return err
			}
			a.node.Applied(work)
		case <-ctx.Done():
			return nil
		}
	}
}

func (a *applier) apply(work raft.Apply) error {
	if work.Snapshot != nil {
		return a.install(*work.Snapshot)
	}
	began := time.Now()
	a.results = a.results[:0]
	slow := false
	last, before := work.Entries[len(work.Entries)-1], began
	for _, e := range work.Entries {
		r, err := a.applyEntry(e)
		if err != nil {
			return fmt.Errorf("apply entry %d: %w", e.Index, err)
		}
		if now := time.Now(); !r.Skipped {
			took := now.Sub(before)
			a.metrics.Applied(r.Op, took, r.Err)
			a.traceApplied(e, before, now, &r)
			slow = a.slowEntry(took, e, &r) || slow
			before = now
		}
		a.results = append(a.results, r)
	}
	crash.Here("beforeWritebackBuf")
	a.store.Publish()
	crash.Here("afterWritebackBuf")
	a.progress.advance(uint64(last.Index))
	for i := range a.results {
		a.finish(&a.results[i])
	}
	clear(a.results)
	if !slow {
		a.slowBatch(time.Since(began), work)
	}
	a.offerSnapshot(last)
	return nil
}

func (a *applier) applyEntry(e raft.Entry) (state.Result, error) {
	at := mvcc.Applied{Index: uint64(e.Index), Term: uint64(e.Term)}
	switch e.Kind {
	case raft.EntryNormal:
		crash.Here("beforeApplyOneEntryNormal")
		if plant.Here(plant.SlowApply) {
			time.Sleep(2 * time.Millisecond)
		}
		r := a.machine.Apply(at, e.Data)
		if errors.Is(r.Err, mvcc.ErrCorrupt) {
			// The other members carry the command out. To go on would make this one differ for good.
			return r, r.Err
		}
		if r.Token != nil {
			// Before the index counts as applied: whoever waits for it wants the token.
			a.tokens.Follow(*r.Token)
		}
		if len(e.Data) == 0 {
			a.promoteLeases(e.Term)
		}
		return r, nil
	case raft.EntryConfChange:
		crash.Here("beforeApplyOneConfChange")
		return a.applyConfChange(at, e)
	}
	return state.Result{}, fmt.Errorf("unknown entry type %d; must be either EntryNormal or EntryConfChange", e.Kind)
}

// applyConfChange changes the members in the state and then in raft. Raft is
// told of a refused change too, as one that changes nothing.
func (a *applier) applyConfChange(at mvcc.Applied, e raft.Entry) (state.Result, error) {
	cc, err := raft.DecodeConfChange(e.Data)
	if err != nil {
		return state.Result{}, err
	}
	// Before the state changes: whoever takes a snapshot now must notice.
	a.confIndex.Store(at.Index)
	r := a.machine.ApplyConfChange(at, state.ConfChange{
		ID: cc.ID, Kind: state.ConfChangeKind(cc.Kind), Member: state.MemberID(cc.Member), Context: cc.Context,
	})
	if !r.TellRaft(at.Index, a.bootApplied) {
		a.node.ApplyConfChange(nil)
		return r, nil
	}
	conf := a.node.ApplyConfChange(&cc)
	a.learner.Store(isLearner(conf, raft.MemberID(a.self)))
	return r, nil
}

func isLearner(conf raft.ConfState, id raft.MemberID) bool {
	for _, l := range conf.Learners {
		if l == id {
			return true
		}
	}
	return false
}

// finish tells everyone whom a result concerns.
func (a *applier) finish(r *state.Result) {
	for _, change := range r.Leases {
		a.followLease(change)
	}
	if r.Member != nil {
		a.followMember(*r.Member)
	}
	if r.ClusterVersion != "" {
		a.followVersion(r.ClusterVersion)
	}
	if r.Downgrade != nil {
		a.followDowngrade(*r.Downgrade)
	}
	if r.CompactTo != 0 {
		a.followCompaction(r.CompactTo)
	}
	if r.RequestID != 0 {
		a.waiters.finish(r.RequestID, *r)
	}
}

func (a *applier) followLease(change state.LeaseChange) {
	id := int64(change.Lease.ID)
	switch change.Kind {
	case state.LeaseGranted:
		a.metrics.LeasesGranted.Inc()
		a.metrics.LeaseTTL.Observe(float64(change.Lease.TTL))
		a.leases.granted(id, time.Duration(change.Lease.TTL)*time.Second, time.Now())
	case state.LeaseRevoked:
		a.metrics.LeasesRevoked.Inc()
		a.leases.revoked(id)
	case state.LeaseCheckpointed:
		a.leases.checkpointed(id, change.Lease.RemainingTTL)
	}
}

// followMember keeps the links to the other members as the state has them.
func (a *applier) followMember(change state.MemberChange) {
	m := change.Member
	a.log.Info("membership changed", "member", fmt.Sprintf("%x", uint64(m.ID)), "name", m.Name,
		"change", changeName(change.Kind), "peer-urls", m.PeerURLs, "learner", m.IsLearner)
	if m.ID == a.self {
		if change.Kind == state.MemberRemoved {
			a.stopRemoved()
		}
		return
	}
	var err error
	switch change.Kind {
	case state.MemberAdded:
		err = a.transport.Add(uint64(m.ID), m.PeerURLs)
	case state.MemberUpdated:
		err = a.transport.Update(uint64(m.ID), m.PeerURLs)
	case state.MemberRemoved:
		a.transport.Remove(uint64(m.ID))
	}
	if err != nil {
		a.log.Warn("link to member not changed", "member", fmt.Sprintf("%x", uint64(m.ID)), "error", err.Error())
	}
}

func changeName(k state.MemberChangeKind) string {
	switch k {
	case state.MemberAdded:
		return "added"
	case state.MemberPromoted:
		return "promoted"
	case state.MemberUpdated:
		return "updated"
	case state.MemberPublished:
		return "published"
	case state.MemberRemoved:
		return "removed"
	}
	return "unknown"
}

// promoteLeases starts the leases' clock when this member has applied the first
// entry of its own term as leader: the state then holds every lease there is.
func (a *applier) promoteLeases(term raft.Term) {
	status := a.node.Status()
	if status.Leader != raft.MemberID(a.self) || status.Term != term {
		return
	}
	a.leases.promoteIn(term, a.leaseTerms(), time.Now(), a.cfg.electionTimeout())
	if a.node.Leader() != raft.MemberID(a.self) {
		a.leases.demote()
	}
}

// install replaces the whole state by the database that the leader has sent.
func (a *applier) install(meta raft.SnapshotMeta) error {
	path, err := wal.SnapDBPath(wal.OS(), a.snapDir, uint64(meta.Index))
	if err != nil {
		return fmt.Errorf("install snapshot %d: %w", meta.Index, err)
	}
	a.metrics.SnapshotApplying.Inc()
	defer a.metrics.SnapshotApplying.Dec()
	a.log.Info("installing snapshot from leader", "index", uint64(meta.Index), "path", filepath.Base(path))
	a.confIndex.Store(uint64(meta.Index))
	if err := a.store.Install(path); err != nil {
		return fmt.Errorf("install snapshot %d: %w", meta.Index, err)
	}
	if err := a.machine.Reload(); err != nil {
		return fmt.Errorf("load installed snapshot %d: %w", meta.Index, err)
	}
	a.metrics.ClusterVersion(clusterVersionLabel(a.machine.ClusterVersion()))
	a.tellVersions()
	// The entries that ended some of them were not seen.
	a.tokens.Follow(state.TokenChange{Kind: state.EveryTokensVoid})
	a.snapshotIndex = uint64(meta.Index)
	a.learner.Store(isLearner(meta.Conf, raft.MemberID(a.self)))
	a.syncTransport()
	a.progress.advance(uint64(meta.Index))
	a.snapshotPublishes()
	if _, err := wal.RemoveSnapDBs(wal.OS(), a.snapDir, uint64(meta.Index)); err != nil {
		a.log.Warn("old received databases stay", "error", err.Error())
	}
	return nil
}

// syncTransport makes the links match the members in the state.
func (a *applier) syncTransport() {
	wanted := map[uint64]bool{}
	for _, m := range a.machine.Members() {
		if m.ID == a.self {
			continue
		}
		wanted[uint64(m.ID)] = true
		if err := a.transport.Add(uint64(m.ID), m.PeerURLs); err != nil {
			a.log.Warn("no link to member", "member", fmt.Sprintf("%x", uint64(m.ID)), "error", err.Error())
		}
	}
	for _, id := range a.transport.Members() {
		if !wanted[id] {
			a.transport.Remove(id)
		}
	}
}
