package state

import (
	"errors"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// If this fails, an entry of the log ends every member that applies it, and
// again at each restart: a stack that grows beyond 1 GB cannot be recovered from.
func TestDeepCommand(t *testing.T) {
	var backwards []byte // the innermost comes last, and its size is needed first
	add := func(field protowire.Number) {
		head := protowire.AppendVarint(protowire.AppendTag(nil, field, protowire.BytesType), uint64(len(backwards)))
		slices.Reverse(head)
		backwards = append(backwards, head...)
	}
	for range 5_000_000 {
		add(4) // RequestOp.request_txn
		add(2) // TxnRequest.success
	}
	add(fieldTxn)
	slices.Reverse(backwards)
	if _, _, err := (&decoder{}).decode(backwards); !errors.Is(err, ErrMalformed) {
		t.Errorf("decoded with %v, want %v", err, ErrMalformed)
	}
}
