// Package crash marks the places where a test may stop the process as if the
// power had gone.
//
// In a normal build Here does nothing and costs nothing. Built with the tag
// failpoints, a process dies by SIGKILL at a point when the environment
// variable GOFAIL_FAILPOINTS arms it, as in
//
//	GOFAIL_FAILPOINTS='wal/before-sync=12*off->return("kill")'
//
// which dies when it comes there for the 13th time. The terms are those of
// go.etcd.io/gofail; several points are separated by semicolons.
package crash
