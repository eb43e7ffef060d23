// Package linear checks that a cluster of Kvorum processes stays linearizable while members are killed, paused, cut off,
// restarted and compacted.
//
// It promises independent judgements of one recorded run (Judge):
//
//   - CheckKeys: each key by itself is a linearizable register with revision, version and create revision. porcupine
//     searches for the order; a request whose outcome is unknown may take effect at any later time, or never.
//   - CheckOrder: the run as a whole follows one timeline of revisions. Every answer equals the state at its revision,
//     and revisions respect real time across keys, members and watchers.
//   - CheckWatches: every watcher heard exactly the events of that timeline, in order, without gap or repeat, across
//     disconnects and members.
//   - CheckBank, CheckLists, CheckLocks: what who uses the store for money, lists and locks relies on.
//
// The timeline is what the watchers of the whole keyspace heard. It is not trusted: a gap in it is a violation, and every
// acknowledged write must be found in it.
//
//	Cluster (faults*.go, disk.go, proxy.go) <-- clients.go, bank.go, locks.go, watchers.go --> History --> judge.go
package linear
