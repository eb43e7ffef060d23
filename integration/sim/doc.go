// Package sim plays clusters of whole members in one goroutine: the real raft
// core and log writer, the real write-ahead log on a file system in memory, the
// real state machine over the real store, and between them a network that
// loses, delays, repeats and reorders, disks that forget what was not synced,
// and a clock that ticks when it is told to.
//
// # Promise
//
// Everything is drawn from one seed, so a seed replays exactly. Every step lets
// one thing happen to one member (a tick, a message, a write, a few entries
// applied, a flush, a snapshot, a crash …), and after it:
//
//   - all members agree on every committed entry, and nobody gets one twice
//     with another content, or one after a gap;
//   - a term has one leader;
//   - nothing is applied or flushed that is not synced in the member's own log;
//   - every entry gives the result, and from time to time the state and its
//     hash, that it gave on a member that never crashed (the truth);
//   - the membership that a member starts from, installs, records or sends with
//     a snapshot is that of the position it names;
//   - a linearizable read sees all writes acknowledged and all reads answered
//     before it began; a read of an old revision gives what it always gave.
//
// At the end all faults stop, and the cluster must recover with equal states
// everywhere.
//
// # Reading order
//
// sim.go chooses what happens; member.go starts and crashes a member as
// server's bootstrap does; apply.go and snapshot.go are what the applier and
// the snapshot goroutine of a server do, cut into steps; truth.go knows what is
// right; workload.go draws the commands.
package sim
