// Package print writes the answers of a cluster for people (simple, table,
// fields) and for programs (json, protobuf).
//
// It promises that the same answer always gives the same bytes, that JSON is
// one compact line, and that an answer with no form in the chosen format is
// refused with ErrFormat rather than written in another one.
package print
