// Package names installs the two programs under etcd's three names and checks
// that they behave as etcd, etcdctl and etcdutl do; and that the examples in
// deploy/ have only flags and paths that exist.
package names
