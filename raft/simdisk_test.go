package raft

import (
	"errors"
	"os"
	"path/filepath"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kvorum/kvorum/raft/wal"
	"github.com/kvorum/kvorum/raft/wal/memfs"
)

// errPower is the power going away in the middle of a write.
var errPower = errors.New("power lost")

// simDisk is a Log that can lose its power.
type simDisk interface {
	Log
	crash()
	load() (State, error) // what is there after a crash; used once per start
}

// listDisk forgets what was not synced, from some point on.
type listDisk struct {
	s      *sim
	ops    []simOp
	synced int // ops that survive anything
}

type simOp struct {
	entries []*raftpb.Entry
	hs      *raftpb.HardState
	snap    *raftpb.SnapshotMetadata
}

func (d *listDisk) mayFail() error { return d.s.mayFail() }

func (s *sim) mayFail() error {
	if !s.calm && s.chance(0.005*s.faults) {
		return errPower
	}
	return nil
}

func (d *listDisk) Append(hs *raftpb.HardState, entries []*raftpb.Entry) error {
	for _, e := range entries { // one record each: a crash may keep the first few
		d.ops = append(d.ops, simOp{entries: []*raftpb.Entry{e}})
	}
	if hs != nil {
		d.ops = append(d.ops, simOp{hs: hs})
	}
	return d.mayFail()
}

func (d *listDisk) AppendSnapshot(s *raftpb.SnapshotMetadata) error {
	d.ops = append(d.ops, simOp{snap: s})
	return d.mayFail()
}

func (d *listDisk) WriteSnapFile(*raftpb.Snapshot) error { return d.mayFail() }

func (d *listDisk) Release(uint64) error { return nil }

func (d *listDisk) Sync() error {
	if err := d.mayFail(); err != nil {
		return err
	}
	d.synced = len(d.ops)
	d.s.counts.Syncs++
	return d.mayFail()
}

func (d *listDisk) crash() {
	keep := d.synced + d.s.rng.IntN(len(d.ops)-d.synced+1)
	d.ops = d.ops[:keep:keep]
	d.synced = keep
}

// load reads the log as the format says: the newest snapshot record that the
// last hard state covers, then the entries above it, later ones replacing
// earlier ones.
func (d *listDisk) load() (State, error) {
	var start State
	for _, op := range d.ops {
		if op.hs != nil {
			start.HardState = op.hs
		}
	}
	for _, op := range d.ops {
		if op.snap != nil && op.snap.GetIndex() <= start.HardState.GetCommit() {
			start.Snapshot = snapshotMetaOf(op.snap)
		}
	}
	at := uint64(start.Snapshot.Index)
	termAt := uint64(0) // of the entry at index at, as far as read
	for _, op := range d.ops {
		for _, e := range op.entries {
			switch i := e.GetIndex(); {
			case i < at:
				termAt = 0
			case i == at:
				termAt = e.GetTerm()
			default:
				start.Entries = append(start.Entries[:i-at-1:i-at-1], e)
			}
			if e.GetIndex() <= at {
				start.Entries = nil
			}
		}
		if op.snap != nil && op.snap.GetIndex() == at && op.snap.GetTerm() != termAt {
			start.Entries = nil // a received snapshot: the log before it was another one
		}
	}
	return start, nil
}

// fileDisk is the real log on a file system in memory.
type fileDisk struct {
	s    *sim
	fs   *memfs.FS
	open *wal.Log // nil after a crash, until load
}

const (
	fileDiskDir  = "/member/wal"
	fileDiskSnap = "/member/snap"
)

func newFileDisk(s *sim) *fileDisk {
	d := &fileDisk{s: s, fs: memfs.New()}
	if err := errors.Join(d.fs.MkdirAll("/member"), d.fs.SyncDir("/"), d.fs.MkdirAll(fileDiskSnap), d.fs.SyncDir("/member")); err != nil {
		panic(err)
	}
	log, err := wal.Create(d.fs, fileDiskDir, []byte("member"))
	if err != nil {
		panic(err)
	}
	d.open = log
	return d
}

func (d *fileDisk) do(f func() error) error {
	if err := d.s.mayFail(); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	return d.s.mayFail()
}

func (d *fileDisk) Append(hs *raftpb.HardState, entries []*raftpb.Entry) error {
	return d.do(func() error { return d.open.Append(hs, entries) })
}

func (d *fileDisk) AppendSnapshot(s *raftpb.SnapshotMetadata) error {
	return d.do(func() error {
		return d.open.AppendSnapshot(wal.Snapshot{Index: s.GetIndex(), Term: s.GetTerm(), ConfState: s.GetConfState()})
	})
}

func (d *fileDisk) WriteSnapFile(s *raftpb.Snapshot) error {
	return d.do(func() error { return wal.WriteSnapFile(d.fs, fileDiskSnap, s) })
}

func (d *fileDisk) Sync() error {
	d.s.counts.Syncs++
	return d.do(d.open.Sync)
}

// Release also purges, so that a restart has no more than it is promised.
func (d *fileDisk) Release(index uint64) error {
	if err := d.open.Release(index); err != nil {
		return err
	}
	_, err := wal.Purge(d.fs, fileDiskDir, 1)
	return err
}

func (d *fileDisk) crash() {
	d.fs.Crash(d.s.rng)
	d.open = nil
}

func (d *fileDisk) load() (State, error) {
	if d.open != nil { // the first start
		if err := d.open.Close(); err != nil {
			return State{}, err
		}
	}
	snapshots, err := wal.ValidSnapshots(d.fs, fileDiskDir)
	if err != nil {
		return State{}, err
	}
	at := snapshots[len(snapshots)-1]
	log, contents, err := wal.Open(d.fs, fileDiskDir, at)
	if err != nil {
		return State{}, err
	}
	log.SetSegmentSize(20_000)
	d.open = log
	start := State{HardState: contents.HardState, Entries: contents.Entries}
	start.Snapshot = SnapshotMeta{Index: Index(at.Index), Term: Term(at.Term), Conf: ConfStateOf(at.ConfState)}
	if at.Index > 0 {
		name := filepath.Join(fileDiskSnap, wal.SnapFileName(at.Index, at.Term))
		if _, err := wal.ReadSnapFile(d.fs, name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return State{}, err
		}
	}
	return start, nil
}
