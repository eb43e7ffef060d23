// Package mvcc is compiled alone from this file until the store is merged.
package mvcc

import "errors"

// Revision counts the changes of the store.
type Revision int64

// Errors of the package.
var (
	// ErrCompacted says that the revision is older than the compaction; read a newer one.
	ErrCompacted = errors.New("mvcc: required revision has been compacted")
	// ErrWatcherExists says that the stream has a watcher of that id; choose another.
	ErrWatcherExists = errors.New("mvcc: duplicate watch ID provided on the WatchStream")
	// ErrEmptyWatchRange says that the range ends before it begins; correct it.
	ErrEmptyWatchRange = errors.New("mvcc: watcher range is empty")
	// ErrWatchStreamClosed says that the stream was closed; open another.
	ErrWatchStreamClosed = errors.New("mvcc: watch stream is closed")
)
