// Package memfs is a file system in memory for tests and simulations of the
// log: it loses what was not synced, tears writes at sector boundaries and fails
// on demand, always the same way for the same seed.
//
// # Promise
//
// [FS] keeps two images: what programs see, and what is on the disk. Sync of a
// file moves its bytes over, SyncDir the names in a directory. [FS.Crash] throws
// away the first image; with a source of randomness it lets some of what was
// not synced survive, as a real disk does: whole writes, single sectors of a
// write, and the first few of a directory's changes. Open files and locks do
// not survive.
//
// A failed sync leaves its bytes visible and never makes them durable, not even
// by a later sync that succeeds, which is what Linux does.
package memfs
