// Package pki makes certificates: a small private authority and what it issues,
// for kvctl certs, and the self-signed ones of --auto-tls.
//
// It promises that a private key is never readable by others, not even for a
// moment, that no file is ever half written, and that the clients of crypto/tls
// accept what it makes (RFC 5280). Times are arguments; keys and serial numbers
// come from the system's random source, which crypto/ecdsa allows no other for.
package pki
