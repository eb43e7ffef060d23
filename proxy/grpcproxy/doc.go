// Package grpcproxy is the command grpc-proxy: it answers clients as a member
// would, with the help of the members, and does once what many clients ask for.
//
// It promises:
//
//   - Watchers on the same range, with the same credentials, share one watch on a
//     member. Each still gets every event once, in order, from its own start
//     revision on, also when the member fails or the watcher is slow.
//   - Keep-alives of all clients with the same credentials share one stream, and
//     those of one lease that meet are one request.
//   - Serializable reads may be answered from a cache, for at most a few seconds
//     and never after a write through this proxy that concerns them. All other
//     reads and all writes go to a member.
//   - A request has the credentials of the client that made it, and no others: the
//     proxy has no user of its own. Nothing that one may see is shown to another.
//   - With a namespace, clients see its keys without the prefix and no others.
//
// Words: a watcher is a client's, a feed is the one watch on a member that it
// shares, a caller is whose credentials a request has.
package grpcproxy
