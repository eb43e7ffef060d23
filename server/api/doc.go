// Package api is the client-facing door: one file per gRPC service, each thin.
//
// A service checks the fields of a request, asks the member behind it (a
// Member, the replicated state or the store), and shapes the answer. It
// promises etcd's wire behaviour: the same fields, the same status codes, the
// same texts, which clients match byte by byte. Errors of all lower packages
// become gRPC statuses in one table, errors.go.
package api
