package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/raft/wal"
)

// takenSnapshot is a position that the log may be cut at once the database is
// durable up to there.
type takenSnapshot struct{ meta raft.SnapshotMeta }

// offerSnapshot asks for a raft snapshot when enough was applied.
func (m *member) offerSnapshot(last raft.Entry) {
	if m.store.Applied().Index > uint64(last.Index) {
		return // the membership in the state is that of a later position
	}
	if uint64(last.Index)-m.snapshotIndex <= snapshotCount || m.taken != nil {
		return
	}
	m.taken = &takenSnapshot{raft.SnapshotMeta{Index: last.Index, Term: last.Term, Conf: raftConf(m.machine.ConfState())}}
	m.snapshotIndex = uint64(last.Index)
}

// saveSnapshot does what the snapshot goroutine of a server does.
func (m *member) saveSnapshot() error {
	if m.taken == nil {
		return nil
	}
	meta := m.taken.meta
	m.taken = nil
	if err := m.sim.truth.checkConf(uint64(meta.Index), meta.Conf); err != nil {
		return fmt.Errorf("snapshot taken: %w", err)
	}
	if err := m.store.Flush(); err != nil {
		return err
	}
	m.sim.counts.Taken++
	return m.dead(m.node.SaveSnapshot(meta, []byte("tree")))
}

// sendSnapshot attaches a body to the oldest snapshot that waits for one.
func (m *member) sendSnapshot() (err error) {
	if len(m.sends) == 0 {
		return nil
	}
	body, err := m.store.Snapshot(context.Background())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	at, conf := body.Applied(), raftConf(m.machine.ConfState())
	if m.confIndex > at.Index {
		return nil // a membership change is half done: try again later
	}
	msg := m.sends[0]
	m.sends = m.sends[1:]
	if err := m.sim.truth.checkConf(at.Index, conf); err != nil {
		return fmt.Errorf("snapshot sent: %w", err)
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	raft.Describe(msg, raft.SnapshotMeta{Index: raft.Index(at.Index), Term: raft.Term(at.Term), Conf: conf}, []byte("tree"))
	if m.links[raft.MemberID(msg.GetTo())] {
		m.sim.net.post(m, msg, data)
	} else {
		m.node.ReportSnapshot(raft.MemberID(msg.GetTo()), false)
	}
	return nil
}

// install replaces the whole state by the database that the leader has sent.
func (m *member) install(meta raft.SnapshotMeta) error {
	s := m.sim
	if meta.Index > m.disk.synced {
		return fmt.Errorf("snapshot %d is installed, the log is synced to %d", meta.Index, m.disk.synced)
	}
	path, err := wal.SnapDBPath(wal.OS(), m.dir, uint64(meta.Index))
	if err != nil {
		return err
	}
	m.confIndex = uint64(meta.Index)
	if err := m.store.Install(path); err != nil {
		return err
	}
	if !s.calm && s.chance(s.swarm.inSnapshot) {
		return m.crash(s.chance(s.swarm.power))
	}
	if err := m.machine.Reload(); err != nil {
		return err
	}
	if at := m.store.Applied().Index; at != uint64(meta.Index) {
		return fmt.Errorf("the body of snapshot %d is of entry %d", meta.Index, at)
	}
	if err := s.truth.checkConf(uint64(meta.Index), raftConf(m.machine.ConfState())); err != nil {
		return fmt.Errorf("snapshot installed: %w", err)
	}
	if err := s.truth.checkConf(uint64(meta.Index), meta.Conf); err != nil {
		return fmt.Errorf("snapshot received: %w", err)
	}
	s.counts.Received++
	m.snapshotIndex, m.handed = uint64(meta.Index), meta.Index
	m.syncLinks()
	if _, err := wal.RemoveSnapDBs(wal.OS(), m.dir, uint64(meta.Index)); err != nil && !os.IsNotExist(err) {
		return err
	}
	m.node.Applied(m.batch)
	m.batch, m.busy = raft.Apply{}, false
	return nil
}

func (m *member) syncLinks() {
	clear(m.links)
	for _, other := range m.machine.Members() {
		if raft.MemberID(other.ID) != m.id {
			m.links[raft.MemberID(other.ID)] = true
		}
	}
}
