// Package table writes docs/compat.md: each thing that etcd 3.7 has, and whether
// Kvorum has it.
//
// What etcd has stands in etcd/*.txt: names, numbers and defaults, one row a line,
// columns between bars. What Kvorum has is found out from a running member and
// from the tools: descriptors and answers to requests, the server's own flags,
// the command tree, output formats and exit codes of commands that run, and
// what /metrics shows.
//
// A new section is a file beside the others with a function that gives its rows,
// and a line in sections in page_test.go. `make compat` writes the page; the test
// fails when the page is not what it would write.
package table
