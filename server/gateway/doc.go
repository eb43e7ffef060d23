// Package gateway lets clients without gRPC use the v3 API: JSON over HTTP, as
// etcd's gateway speaks it.
//
// It promises that a request means what the same message means over gRPC, since
// it becomes one: it goes through the gRPC server of the own process with all
// of its checks, and the answer or the status comes back as JSON. Nothing is
// decided here. Bytes are base64, 64-bit integers are strings, names are those
// of the .proto files, and what has its default is left out.
//
// A stream is one JSON object per line. What the client sends on it are JSON
// objects one after the other; they are read as the server takes them.
package gateway
