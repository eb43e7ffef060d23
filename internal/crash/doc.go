// Package crash marks the places where a test may stop, delay or kill the
// process, as if the power had gone.
//
// In a normal build Here does nothing, Set is the constant false, and neither
// leaves code behind. Built with the tag failpoints the points are served by
// go.etcd.io/gofail, in the ways of that library:
//
//	GOFAIL_FAILPOINTS='walBeforeSync=12*off->panic;beforeCommit=sleep(100)'
//	GOFAIL_HTTP=127.0.0.1:22381   GET / lists, PUT /name sets a term, DELETE /name clears
//
// A point that means the same as one of etcd has its name, so that chaos tools
// made for etcd find what they know; Kvorum's own are named "package/moment".
// A panic ends the process wherever the point is, also where somebody would
// recover it. docs/reliability.md says what each point means and which test comes
// there. One term has a meaning that etcd's points have not: return("kill") ends
// the process by SIGKILL, without the deferred calls of a panic.
//
// A name or a term in GOFAIL_FAILPOINTS that does not exist ends the process at
// its start: a test whose fault never happens proves nothing.
package crash
