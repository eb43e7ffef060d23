// Package nesting tells how deep a message from outside is nested, before
// generated code decodes it: that calls itself for each level, and a goroutine
// whose stack grows too large ends the process.
package nesting

import "google.golang.org/protobuf/encoding/protowire"

// TxnsMax is how many transactions within each other generated code may decode.
// What is deeper is left to the protobuf library, which has a bound of its own
// and an error that clients know.
const TxnsMax = 100

// The numbers of the fields that lead from a transaction to one within it.
const (
	fieldSuccess, fieldFailure = 2, 3 // of a TxnRequest: operations
	fieldTxn                   = 4    // of a RequestOp
)

// IsShallow reports whether the encoded TxnRequest holds at most TxnsMax
// transactions within each other. It is false for what cannot be read.
func IsShallow(txn []byte) bool { return isShallow(txn, false, 2*TxnsMax) }

// isShallow looks at a TxnRequest or, at every other level, at a RequestOp.
func isShallow(b []byte, op bool, levels int) bool {
	if levels == 0 {
		return false
	}
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false
		}
		size := protowire.ConsumeFieldValue(number, kind, b[n:])
		if size < 0 {
			return false
		}
		if kind == protowire.BytesType && leadsDeeper(number, op) {
			inner, _ := protowire.ConsumeBytes(b[n:])
			if !isShallow(inner, !op, levels-1) {
				return false
			}
		}
		b = b[n+size:]
	}
	return true
}

func leadsDeeper(number protowire.Number, op bool) bool {
	if op {
		return number == fieldTxn
	}
	return number == fieldSuccess || number == fieldFailure
}
