// Package state is the replicated machine: what the cluster agrees on, apart
// from the keys themselves, and the rules by which a committed command changes
// it.
//
// # Promise
//
// The same commands in the same order give, on every member, the same bytes in
// the store and the same results. Apply reads the command and the state and
// nothing else: no clock, no randomness, no goroutine, no file, no size of a
// file. What is slow, random or local (password hashes, tokens, ids, the space
// quota, lease deadlines) is decided before a command is proposed, or by the
// caller from the Result.
//
// Every entry advances the applied index, whether it succeeds, fails, is empty
// or cannot be decoded. A command that fails changes nothing else. Bytes from
// the log never panic.
//
// # Words
//
// A command is one InternalRaftRequest, the data of a normal log entry. A
// membership change is the content of a configuration entry. A guard is a
// check that refuses a command before it reaches the state: first the alarms
// (NOSPACE, CORRUPT), then the permissions of the user named in the command's
// header, as they are when the command is applied.
//
// # Replay
//
// A restarted member hands over entries that its store already holds. Those at
// or below the applied index are skipped whole: they are not decoded and their
// Result says Skipped. All memory of the machine is read from the same store,
// so it reflects them already; running an old cluster version or attribute
// again would only show readers a value older than the stored one.
//
// # Ownership
//
// One goroutine, the applier, calls Apply, ApplyConfChange and Reload. Every
// other exported method may be called from any goroutine. What the machine
// keeps in memory is written by the applier under one lock, so the applier
// itself reads it without. Durability is the store's: whatever a command
// changes, in any bucket, reaches the disk in one transaction together with
// the applied index.
package state
