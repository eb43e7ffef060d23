// Package logs is the member's log: one line per record in etcd's form, so that
// what reads the log of etcd reads this one.
//
//	{"level":"info","ts":"2026-11-21T23:00:38.408151Z","caller":"server/serve.go:178","msg":"ready to serve client requests"}
//
// The console form has the same, with tabs between and the fields as one JSON
// object at the end. A record's time is UTC with microseconds; durations are
// text such as 1.5ms; the attribute "logger" names a part of the server.
//
// A line goes to all outputs: stderr, stdout, files, or systemd's journal. An
// output that fails, as on a full disk, loses the line and disturbs nobody.
package logs
