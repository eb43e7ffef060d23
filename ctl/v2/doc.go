// Package v2 is kvctl with ETCDCTL_API=2: the commands for the keys, members,
// users and roles of the v2 API.
//
// # Promise
//
// What people and scripts typed for etcdctl 3.4 does the same: results on
// standard output, errors on standard error, exit codes 0 to 5. The v2 API is
// all that is used, so the commands also work with etcd up to 3.5.
//
// Each command is one file and one value of type command; client.go speaks HTTP
// and tries one endpoint after the other.
package v2
