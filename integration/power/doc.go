// Package power takes the power away from real processes, after the fact.
//
// A server runs under strace, which writes down every call that changes a file
// or a directory, and every sync. From this record Disk computes what a disk may
// hold when the power goes at any moment: what was synced, and of the rest
// nothing, all, or each sector as it was at some moment since and the first few
// changes of a directory. A name is there after a crash only when its directory was synced;
// the bytes of a file only when the file was. Each such image is written to a
// folder, a server is started on it, and what was acknowledged before the moment
// must be there.
//
// This sees all files that a member has, the database of bbolt too, in the
// program as it is shipped: nothing is linked in and no interface is in between.
// What it does not see are writes through a mapping of memory (there are none)
// and what a disk does that lies about its syncs.
package power
