// Package mvcc keeps every version of every key, in memory and in one bbolt
// file.
//
// # Promise
//
// All changes made by one log entry share one Revision and become visible
// together, at the Publish that follows them. A reader sees one revision and
// never waits for the writer. What Flush (or the flusher, Run) has committed
// survives a crash, together with the log position that it reflects: both are
// in the same bbolt transaction, so after a crash the keys, the other buckets
// and Applied describe the same moment, and the log is replayed from there.
//
// # Words
//
//   - record: one version of one key, an encoded mvccpb.KeyValue; a tombstone
//     is the record of a deletion.
//   - stamp: the name of a record: its main revision, its place in that
//     revision, and whether it is a tombstone.
//   - tail: the newest records, in memory; the unflushed ones are its end.
//   - index: a counted copy-on-write B-tree from keys to stamps.
//   - view: an immutable picture of index and tail at one revision.
//   - applied: in memory; flushed: in bbolt.
//
// # One write
//
//	Write(at) → Put, DeleteRange, Txn … → Close    one entry, one revision
//	Publish                                        visible, told to the watch hub
//	flusher                                        one bbolt transaction, later
//
// Only one goroutine, the applier, writes. Revisions only grow, so everything
// that is not flushed is newer than all that is: a record is looked for in the
// tail and then in bbolt, and a scan of history is a concatenation.
//
// # Locks
//
// flushMu (who may change the file) is taken before mu (who may change the
// state in memory). Readers take neither.
package mvcc
