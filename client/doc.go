// Package client talks to a Kvorum (or etcd) cluster.
//
// A Client keeps one connection to every endpoint, spreads calls over those
// that answer, and waits for one that does until the context of the call ends.
// Its promises:
//
//   - A read is repeated on another endpoint when a member is unavailable. A
//     write is never repeated once it may have reached a member: an error with
//     code Unavailable or DeadlineExceeded on a write means "unknown outcome".
//   - A watcher gets every event once and in order, over any number of broken
//     connections, or it ends with an error that says why.
//   - A lease that is kept alive and then lost closes its channel.
//   - Errors with a text that the protocol fixes are the sentinels of this
//     package, so errors.Is works.
//
// Small things have methods on Client (Put, Get, Watch, Grant ...). Everything
// else is reachable through the generated stubs in the fields KV, Leases,
// Cluster, Maintenance and Auth, which pass through the same retries, token
// handling and error table.
package client
