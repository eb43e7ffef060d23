// Package ctl drives clusters of real processes with the real control
// tool, as an operator does: backups and what is made of them, changes of the
// membership and of the leader, work on the files of a stopped member.
package ctl
