// Package offline works on the data directory of a stopped member.
//
// # Promise
//
//   - [Check] reads everything and changes nothing, not even a time stamp. What
//     it calls sound, a server starts on.
//   - [Rank] says how far a member's log goes. Of members that survive, the one
//     with the greatest term of its last entry, then the greatest index, has
//     everything that any of them can prove to have been acknowledged: it is the
//     order in which members elect a leader.
//   - [Recover] makes a cluster of one voter out of a survivor. Everything in
//     its log counts as committed. It works on a copy and puts it in place by
//     renaming, so that it happens whole or not at all, and keeps what was there.
//
// All of them refuse a directory that a server has open.
package offline
