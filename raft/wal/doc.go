// Package wal is the member's write-ahead log and its raft snapshot files: what
// makes a write durable.
//
// # Promise
//
//   - After [Log.Sync] returns nil, everything appended before it survives a
//     crash of the process and of the machine, and comes back from [Open] in
//     the order in which it was appended.
//   - What was appended and not synced may come back or not; it never comes
//     back altered, and nothing comes back that was not appended.
//   - A write torn by a crash is cut off when the log is opened. Damage that a
//     crash cannot explain is refused, never skipped.
//   - After a failed write or sync nothing more is written: the kernel may have
//     dropped the pages, so a second sync that succeeds would prove nothing.
//     Every later call returns [ErrFailed] and the member must stop.
//
// # Words
//
// A segment is one file of the log. A record is a framed, checksummed unit in
// it. The tail is the last segment, the only one written to. A cut starts a new
// tail. A hard state is raft's term, vote and commit index.
//
// # Format
//
// The files are those of etcd 3.7, which reads ours and whose we read:
//
//	segment  %016x-%016x.wal  (sequence, index of the first entry expected)
//	         crc, metadata, snapshot(0,0) | state, then entries, states, snapshots
//	record   8 bytes little endian: length in the low 56 bits, 0x80|padding on top
//	         protobuf {1: type, 2: crc, 3: data}, zero padding to 8 bytes
//	crc      one running CRC-32C over the data of all records, carried from
//	         segment to segment by the crc record
//	.snap    %016x-%016x.snap (term, index): protobuf {1: crc, 2: raftpb.Snapshot}
//	.snap.db %016x.snap.db (index): a database received from the leader
//
// # Durable when
//
// Entries, a changed term or vote, and snapshot records need a sync before
// anyone is told of them. A hard state in which only commit moved does not:
// commit is recomputed from the other members, and [Log.SyncNeeded] says so.
// After a crash the applied index may therefore exceed the saved commit.
//
// # Where this reader is stricter than etcd's
//
// It refuses a log in which a length field contradicts its record or is zero
// before more data, a segment that does not begin with its two head records, and
// entries and hard states that no member writes: type and length of a record lie
// outside its checksum. It does not bring back entries that were replaced at or
// below the snapshot it opens at. It reports a gap after the first segment, and
// an unknown snapshot also when it opens for appending.
package wal
