//go:build failpoints

package crash

// names are all points. TestNames compares them with what the code passes.
func names() []string {
	return []string{
		// As in etcd.
		"raftBeforeSave", "raftAfterSave", "raftBeforeSaveSnap", "raftAfterSaveSnap",
		"raftBeforeApplySnap", "raftAfterApplySnap", "raftAfterWALRelease",
		"raftBeforeLeaderSend", "raftBeforeFollowerSend", "raftDropHeartbeat",
		"walBeforeSync", "walAfterSync",
		"beforeStartDBTxn", "afterStartDBTxn", "beforeCommit", "afterCommit",
		"commitBeforePreCommitHook", "commitAfterPreCommitHook",
		"beforeWritebackBuf", "afterWritebackBuf",
		"applyBeforeOpenSnapshot", "applyAfterOpenSnapshot",
		"beforeApplyOneEntryNormal", "beforeApplyOneConfChange",
		"compactBeforeCommitScheduledCompact", "compactAfterCommitScheduledCompact",
		"compactBeforeCommitBatch", "compactAfterCommitBatch",
		"compactBeforeSetFinishedCompact", "compactAfterSetFinishedCompact",
		"defragBeforeCopy", "defragBeforeRename",
		"beforeCheckpointInLeaseRenew", "beforeSendWatchResponse", "beforeRangeStreamChunk",

		// Kvorum's own.
		"mvcc/after-defrag-rename", "mvcc/before-install-rename", "mvcc/after-install-rename",
		"peer/before-snapshot-sync", "peer/before-snapshot-rename", "peer/before-snapshot-dir-sync",
		"raft/before-sync", "raft/before-snapshot-record",
		"server/fast-lease-checkpoints",
		"snap/before-sync", "snap/before-rename", "snap/before-dir-sync", "snap/after-write",
		"wal/create-before-rename", "wal/create-before-dir-sync", "wal/open-tail-cleared",
		"wal/cut-before-create", "wal/cut-before-rename", "wal/cut-before-dir-sync", "wal/after-cut",
		"wal/repair-before-truncate", "wal/repair-after-truncate",
	}
}
