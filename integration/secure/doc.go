// Package secure runs the commands of the README and of docs/tls.md that make a
// cluster under mutual TLS and replace its authority, as a person would type
// them, against real processes. Only ports are others: those that are free.
package secure
