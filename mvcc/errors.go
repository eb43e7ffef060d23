package mvcc

import "errors"

// Errors that callers tell apart.
var (
	// ErrCompacted says that the wanted revision was compacted away: ask for a newer one.
	ErrCompacted = errors.New("mvcc: required revision has been compacted")
	// ErrFutureRevision says that the store has not reached the wanted revision.
	ErrFutureRevision = errors.New("mvcc: required revision is a future revision")
	// ErrKeyNotFound says that a put wants to keep the value or lease of a key that does not exist.
	ErrKeyNotFound = errors.New("mvcc: key not found")
	// ErrLeaseNotFound says that a put names a lease that does not exist.
	ErrLeaseNotFound = errors.New("mvcc: lease not found")
	// ErrWatcherExists says that the stream has a watcher of that id; choose another.
	ErrWatcherExists = errors.New("mvcc: duplicate watch ID provided on the WatchStream")
	// ErrEmptyWatchRange says that the range ends before it begins; correct it.
	ErrEmptyWatchRange = errors.New("mvcc: watcher range is empty")
	// ErrWatchStreamClosed says that the stream was closed; open another.
	ErrWatchStreamClosed = errors.New("mvcc: watch stream is closed")
	// ErrClosed says that the store was closed.
	ErrClosed = errors.New("mvcc: store is closed")
	// ErrLockMemory says that the process may not keep the file in RAM: give it a memlock limit above the file's size, or do without.
	ErrLockMemory = errors.New("mvcc: memory cannot be locked")
	// ErrOvertaken says that Install replaced the file while it was defragmented; there is no more to do.
	ErrOvertaken = errors.New("mvcc: the database was replaced meanwhile")
	// ErrCorrupt says that the file contradicts itself: restore the member from another one.
	ErrCorrupt = errors.New("mvcc: database is corrupt")
)

// errStale tells a reader that its view was overtaken (a compaction removed a
// record that it names, or its file was replaced): take a new view.
var errStale = errors.New("mvcc: view was overtaken")
