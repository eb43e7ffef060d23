package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kvorum/kvorum/mvcc"
	"github.com/kvorum/kvorum/raft/wal"
)

// storage observes what waits for the disk.
type storage struct {
	logSync, logWrite               prometheus.Observer
	snapEncode, snapSync, snapSave  prometheus.Observer
	commit, rebalance, spill, write prometheus.Observer
	compactIndex, compactFile       prometheus.Observer
	receivedSync, receivedSave      prometheus.Observer
}

func newStorage(s *Set) *storage {
	seconds := func(name, help string) prometheus.Observer {
		return s.histogram("etcd_"+name+"_duration_seconds", help, 0.001, 14)
	}
	return &storage{
		logSync:      seconds("disk_wal_fsync", "Seconds that one sync of the log took."),
		logWrite:     seconds("disk_wal_write", "Seconds that one write to the log took."),
		snapEncode:   seconds("debugging_snap_save_marshalling", "Seconds that encoding a raft snapshot file took."),
		snapSync:     seconds("snap_fsync", "Seconds that the sync of a raft snapshot file took."),
		snapSave:     seconds("debugging_snap_save_total", "Seconds that saving a raft snapshot file took."),
		commit:       seconds("disk_backend_commit", "Seconds that one commit of the database took."),
		rebalance:    seconds("debugging_disk_backend_commit_rebalance", "Of a commit: seconds of merging small pages."),
		spill:        seconds("debugging_disk_backend_commit_spill", "Of a commit: seconds of splitting large pages."),
		write:        seconds("debugging_disk_backend_commit_write", "Of a commit: seconds of writing pages."),
		compactIndex: s.histogram("etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds", "Milliseconds of one slice of a compaction in the index.", 0.5, 14),
		compactFile:  s.histogram("etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds", "Milliseconds of one slice of a compaction in the database.", 1, 13),
		receivedSync: seconds("snap_db_fsync", "Seconds that the sync of a database received from the leader took."),
		receivedSave: s.histogram("etcd_snap_db_save_total_duration_seconds", "Seconds that receiving a database from the leader and saving it took.", 0.1, 10),
	}
}

// LogStep observes the log; see wal.Log.Observe.
func (o *storage) LogStep(step wal.Step, took time.Duration) {
	switch step {
	case wal.StepSync:
		o.logSync.Observe(took.Seconds())
	case wal.StepWrite:
		o.logWrite.Observe(took.Seconds())
	case wal.StepSnapEncode:
		o.snapEncode.Observe(took.Seconds())
	case wal.StepSnapSync:
		o.snapSync.Observe(took.Seconds())
	case wal.StepSnapSave:
		o.snapSave.Observe(took.Seconds())
	}
}

// StoreStep observes the store; see mvcc.Options.
func (o *storage) StoreStep(step mvcc.Step, took time.Duration) {
	switch step {
	case mvcc.StepCommit:
		o.commit.Observe(took.Seconds())
	case mvcc.StepRebalance:
		o.rebalance.Observe(took.Seconds())
	case mvcc.StepSpill:
		o.spill.Observe(took.Seconds())
	case mvcc.StepWrite:
		o.write.Observe(took.Seconds())
	case mvcc.StepCompactIndex:
		o.compactIndex.Observe(float64(took.Microseconds()) / 1000)
	case mvcc.StepCompactFile:
		o.compactFile.Observe(float64(took.Microseconds()) / 1000)
	}
}
