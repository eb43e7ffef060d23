package wal

import "errors"

// The errors of this package. The texts of those that etcd also reports are
// etcd's, since operators search for them.
var (
	// ErrFileNotFound: the directory has no segment, or none that can start at
	// the wanted snapshot. The data directory is incomplete; restore it.
	ErrFileNotFound = errors.New("wal: file not found")
	// ErrMetadataConflict: segments of two different members or clusters lie in
	// one directory.
	ErrMetadataConflict = errors.New("wal: conflicting metadata found")
	// ErrCRCMismatch: a record is damaged and no torn write explains it. Do not
	// start the member; replace it or restore its directory.
	ErrCRCMismatch = errors.New("walpb: crc mismatch")
	// ErrSnapshotMismatch: the log has a snapshot at the wanted index with
	// another term.
	ErrSnapshotMismatch = errors.New("wal: snapshot mismatch")
	// ErrSnapshotNotFound: the log has no snapshot record for the wanted index.
	ErrSnapshotNotFound = errors.New("wal: snapshot not found")
	// ErrSliceOutOfRange: entries between the wanted snapshot and the first
	// entry of the log are missing.
	ErrSliceOutOfRange = errors.New("wal: slice bounds out of range")
	// ErrLocked: another process holds the log.
	ErrLocked = errors.New("fileutil: file already locked")
	// ErrFailed: an earlier write or sync of this log failed; what is on disk is
	// unknown. Stop the member.
	ErrFailed = errors.New("wal: log failed and takes no more writes")
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("wal: log is closed")

	// ErrEmptySnapshot: a .snap file has no contents.
	ErrEmptySnapshot = errors.New("snap: empty snapshot")
	// ErrSnapCRCMismatch: a .snap file is damaged.
	ErrSnapCRCMismatch = errors.New("snap: crc mismatch")
	// ErrNoSnapshot: no readable .snap file; the log must begin at index 1.
	ErrNoSnapshot = errors.New("snap: no available snapshot")
	// ErrNoSnapDB: no received database for the wanted index.
	ErrNoSnapDB = errors.New("snap: snapshot file doesn't exist")
)
