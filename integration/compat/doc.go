// Package compat proves, with other people's clients, that Kvorum can stand where etcd stands.
//
// The same tests run against Kvorum and, with -target=etcd, against an embedded etcd 3.7, so that the suite itself is
// proved against the real thing:
//
//	go test ./...                 Kvorum: $KVORUM_BIN, or cmd/kvorum built for the test
//	go test ./... -target=etcd    etcd
//
// Servers are processes of their own on free loopback ports; nothing of Kvorum is linked here, because etcd's generated
// messages have the names that ours have, and one process cannot hold both. This is a Go module of its own for the same
// reason: etcd's dependencies stay out of Kvorum's.
//
// The differential tests (differ_*_test.go) feed both the same requests and compare the answers: thousands of random
// ones over gRPC, hundreds of JSON ones, the limits, the quota. They print their seed, shorten what they find to a few
// requests, and keep a table of the differences that should stay:
//
//	KVORUM_SEED=n go test -run '^TestDifferential$/keys'    replays one run
//	KVORUM_LONG=1 go test -run '^TestDifferential'          many more requests
//	go test -run '^TestDifferential$' -keep-going           every difference of a run, none shortened
package compat
