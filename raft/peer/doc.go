// Package peer carries raft messages and snapshots between the members of a
// cluster, in the peer protocol of etcd 3.7, so that members of both kinds can
// stand in one cluster.
//
// # Promise
//
//   - Send never blocks. A message is delivered at most once, or dropped; a
//     burst of drops, a broken stream or a failed post ends in one
//     Receiver.Unreachable. Messages of one kind to one member keep their order
//     as long as one stream carries them.
//   - Messages handed to Send are only read, may be shared between members, and
//     are encoded on the goroutine of the link that carries them.
//   - Every queue is bounded by count and by bytes. A full one drops what comes.
//   - The outcome of every snapshot that was to be sent is reported once, by
//     Receiver.SnapshotSent.
//   - When Receiver.ReceiveSnapshot is called, the database file is complete and
//     durable under its final name; a partial one is deleted.
//   - A length that a stranger sends never makes the process allocate more than
//     a small multiple of the bytes that really came.
//
// # Words
//
// A peer is another member of the cluster: it has streams. A remote is somebody
// who talks to us and whom our applied state does not know yet, or whom we know
// only by bootstrap: we can post to it, so that it (or we) can catch up, but keep
// no streams.
//
// # Links
//
//	             who dials         carries
//	message      the receiver      everything but MsgApp and MsgSnap
//	msgapp       the receiver      MsgApp, in the msgappv2 encoding
//	post         the sender        what has no stream; probes of the round trip
//	snapshot     the sender        MsgSnap and the database file
//
// # Goroutines
//
// Per peer: two readers, one for each stream that we dial, since each of them
// sits in a blocking read; one poster, which also probes; at most one snapshot
// sender, while one is under way. Our half of the two streams that the peer
// dials runs on the goroutines that net/http gives to their requests. A remote
// has the poster only. Run itself delivers the reports to the Receiver, so that
// none is made from inside Send. Run returns when all of these have ended.
package peer
