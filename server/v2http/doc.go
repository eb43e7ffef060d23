// Package v2http serves etcd's v2 API: /v2/keys, /v2/members, /v2/machines,
// /v2/stats and /v2/auth, as plain HTTP and JSON.
//
// # Promise
//
// Status, headers, JSON, error codes and texts are those of etcd 3.4, as
// docs/v2.md lists them with the few exceptions. A write is one raft command
// and is answered when this member has applied it; a read is answered from this
// member's store, after a read barrier if it asks for quorum. Every answer is
// of one revision, which is the v2 index.
//
// # Words
//
// A request is what a client has sent, parsed. A plain request is one that
// Direct answers without net/http. A problem is an error in the
// words of the API: code, message, cause and index.
package v2http
