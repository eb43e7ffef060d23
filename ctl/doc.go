// Package ctl is kvctl, the control tool: one file per command.
//
// It promises the names, flags, exit codes and output of etcdctl (v3) and of
// the offline commands of etcdutl, so that scripts run unchanged. Results go
// to standard output and everything else to standard error.
package ctl
