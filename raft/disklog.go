package raft

import (
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kvorum/kvorum/raft/wal"
)

// DiskLog is the Log of a member that runs: a write-ahead log and the folder of
// its .snap files.
type DiskLog struct {
	fs      wal.FS
	log     *wal.Log
	snapDir string
	noSync  bool
	synced  int64 // bytes written at the last sync, with noSync
}

// unsyncedBytesMax is how much noSync lets gather: the log starts a new segment
// only at a sync.
const unsyncedBytesMax = 64_000_000

// NewDiskLog puts a Log together. With noSync hardly anything waits for the disk,
// and what was acknowledged may be lost when the power goes.
func NewDiskLog(log *wal.Log, snapDir string, noSync bool) *DiskLog {
	return &DiskLog{fs: wal.OS(), log: log, snapDir: snapDir, noSync: noSync}
}

// NewDiskLogOn puts a Log together on any file system, for simulations.
func NewDiskLogOn(fs wal.FS, log *wal.Log, snapDir string) *DiskLog {
	return &DiskLog{fs: fs, log: log, snapDir: snapDir}
}

// Append implements Log.
func (d *DiskLog) Append(hs *raftpb.HardState, entries []*raftpb.Entry) error {
	return d.log.Append(hs, entries)
}

// AppendSnapshot implements Log.
func (d *DiskLog) AppendSnapshot(s *raftpb.SnapshotMetadata) error {
	return d.log.AppendSnapshot(wal.Snapshot{Index: s.GetIndex(), Term: s.GetTerm(), ConfState: s.GetConfState()})
}

// WriteSnapFile implements Log.
func (d *DiskLog) WriteSnapFile(s *raftpb.Snapshot) error {
	return d.log.WriteSnapFile(d.fs, d.snapDir, s)
}

// Sync implements Log.
func (d *DiskLog) Sync() error {
	if d.noSync {
		written := d.log.Stats().BytesWritten
		if written-d.synced < unsyncedBytesMax {
			return nil
		}
		d.synced = written
	}
	return d.log.Sync()
}

// Release implements Log.
func (d *DiskLog) Release(index uint64) error { return d.log.Release(index) }

// MarkSnapshot makes it durable that the database beside the log stands for
// everything up to meta: the .snap file with data as its body, then a record
// in the log. It is for tools that make a log; a running node does the same by
// SaveSnapshot.
func (d *DiskLog) MarkSnapshot(meta SnapshotMeta, data []byte) error {
	snap := &raftpb.Snapshot{Data: data, Metadata: meta.proto()}
	if err := d.WriteSnapFile(snap); err != nil {
		return err
	}
	if err := d.AppendSnapshot(snap.GetMetadata()); err != nil {
		return err
	}
	return d.log.Sync()
}
