package server

import (
	"context"
	"fmt"
	"time"

	"github.com/kvorum/kvorum/mvcc"
	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/raft/wal"
	"github.com/kvorum/kvorum/server/state"
)

const (
	purgeEvery       = 30 * time.Second
	snapshotAttempts = 100 // takes of a snapshot while the membership keeps changing
)

// takenSnapshot is a position that the log may be cut at once the database is
// durable up to there.
type takenSnapshot struct {
	meta raft.SnapshotMeta
	body []byte
}

// offerSnapshot asks for a raft snapshot when enough was applied since the
// last. One at a time; the applier does not wait for it. After a crash, entries
// come again that the state is ahead of: it then has the membership of a later
// position, so nothing is offered until it has caught up.
func (a *applier) offerSnapshot(last raft.Entry) {
	if a.store.Applied().Index > uint64(last.Index) {
		return
	}
	if uint64(last.Index)-a.snapshotIndex <= a.cfg.SnapshotCount && !a.forceSnapshot {
		return
	}
	meta := raft.SnapshotMeta{Index: last.Index, Term: last.Term, Conf: raftConf(a.machine.ConfState())}
	select {
	case a.snapshots <- takenSnapshot{meta, wal.LegacyTree(a.membership())}:
		a.snapshotIndex, a.forceSnapshot = uint64(last.Index), false
	default:
	}
}

func raftConf(c state.ConfState) raft.ConfState {
	convert := func(ids []state.MemberID) []raft.MemberID {
		out := make([]raft.MemberID, len(ids))
		for i, id := range ids {
			out[i] = raft.MemberID(id)
		}
		return out
	}
	return raft.ConfState{Voters: convert(c.Voters), Learners: convert(c.Learners)}
}

// membership is the state's members in the form that .snap files carry.
func (s *Server) membership() wal.Membership {
	return walMembership(s.machine.Members(), s.machine.RemovedMembers(), s.machine.ClusterVersion())
}

func walMembership(members []state.Member, removed []state.MemberID, clusterVersion string) wal.Membership {
	all := wal.Membership{ClusterVersion: clusterVersion}
	for _, m := range members {
		all.Members = append(all.Members, wal.Member{ID: uint64(m.ID), Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, IsLearner: m.IsLearner})
	}
	for _, id := range removed {
		all.Removed = append(all.Removed, uint64(id))
	}
	return all
}

// runSnapshots makes raft snapshots: it waits until the database is durable up
// to the position, then records it, so that the log never lets go of what the
// database may still need.
func (s *Server) runSnapshots(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case t := <-s.snapshots:
			if err := s.store.Flush(); err != nil {
				return fmt.Errorf("flush before snapshot %d: %w", t.meta.Index, err)
			}
			if err := s.node.SaveSnapshot(ctx, t.meta, t.body); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return fmt.Errorf("save snapshot %d: %w", t.meta.Index, err)
			}
			s.log.Info("saved snapshot", "snapshot-index", uint64(t.meta.Index))
		}
	}
}

// runPurge deletes log segments and snapshot files that nobody needs.
func (s *Server) runPurge(ctx context.Context) error {
	every(ctx, purgeEvery, func(time.Time) {
		for _, purge := range []struct {
			what string
			do   func() ([]string, error)
		}{
			{"log segments", func() ([]string, error) { return wal.Purge(wal.OS(), s.walDir, s.cfg.WALsMax) }},
			{"snapshot files", func() ([]string, error) { return wal.PurgeSnaps(wal.OS(), s.snapDir, s.cfg.SnapshotsMax) }},
			{"received databases", func() ([]string, error) {
				return wal.RemoveSnapDBs(wal.OS(), s.snapDir, s.store.Flushed().Index)
			}},
		} {
			names, err := purge.do()
			if err != nil {
				s.log.Warn("purge failed", "what", purge.what, "error", err.Error())
			} else if len(names) > 0 {
				s.log.Info("purged", "what", purge.what, "names", names)
			}
		}
	})
	return nil
}

// SendSnapshot implements raft.SnapshotSender.
func (s *Server) SendSnapshot(m *raft.Message) {
	s.background.Go(func() {
		if err := s.sendSnapshot(m); err != nil {
			s.log.Warn("snapshot not sent", "to", fmt.Sprintf("%x", m.GetTo()), "error", err.Error())
			s.node.ReportSnapshot(raft.MemberID(m.GetTo()), false)
		}
	})
}

func (s *Server) sendSnapshot(m *raft.Message) error {
	body, conf, err := s.takeSnapshot()
	if err != nil {
		return err
	}
	at := body.Applied()
	raft.Describe(m, raft.SnapshotMeta{Index: raft.Index(at.Index), Term: raft.Term(at.Term), Conf: conf}, wal.LegacyTree(s.membership()))
	s.log.Info("sending snapshot", "to", fmt.Sprintf("%x", m.GetTo()), "index", at.Index, "bytes", body.Size())
	s.transport.SendSnapshot(m, body, body.Size())
	return nil
}

// takeSnapshot copies the database together with the membership at exactly its
// position: it tries again when a membership change was applied meanwhile.
func (s *Server) takeSnapshot() (*mvcc.Snapshot, raft.ConfState, error) {
	for range snapshotAttempts {
		body, err := s.store.Snapshot(s.ctx)
		if err != nil {
			return nil, raft.ConfState{}, err
		}
		conf := raftConf(s.machine.ConfState())
		if s.confIndex.Load() <= body.Applied().Index {
			return body, conf, nil
		}
		body.Close()
	}
	return nil, raft.ConfState{}, fmt.Errorf("the membership kept changing while a snapshot was taken")
}
