// Package v2keys keeps the nodes of the v2 API, files and directories, in the
// store of the v3 keys, and decides what a v2 command does to them.
//
// # Promise
//
// One command is one revision, or changes nothing. Equal commands on equal
// stores give equal bytes and equal answers: no clock, no chance, no goroutine.
// Since nodes are keys of the store like any other, snapshots, hashes,
// compaction and history have them without knowing of them.
//
// # Words
//
// A node is a file, which has a value, or a directory. The root is a directory
// that is always there and never stored. The head of a revision is the node
// that the command named; watchers are told of it alone, whatever else the
// revision has changed.
//
// # In the store
//
//	\x00v2/a/b            the node /a/b (Prefix and the path)
//	\x00v2!last-removal   what the last removal was
//
// A path sorts before all that is below it, and what is below /a/b is the
// range from /a/b/ to /a/b0, as 0 follows the slash. The value of a node is
//
//	byte      action that wrote it: 1 set … 4 compareAndSwap
//	byte      flags: 1 directory, 2 expires, 4 silent, 8 not the head,
//	          16 has a modified index of its own
//	uvarint   created index
//	uvarint   modified index, only with flag 16; else it is the key's mod revision
//	varint    expiration in nanoseconds since 1970, only with flag 2
//	…         the value of a file
//
// A node that expires hangs on a lease of its own. Tombstones have no value, so
// a removal writes down beside them what watchers have to be told: its action (5
// delete … 7 expire), flags (1 directory), created index and path of its head.
//
// Invariant: every directory above a node is stored.
package v2keys
