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
package compat
