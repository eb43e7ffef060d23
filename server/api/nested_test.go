package api

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// nestedTxn is an encoded transaction with so many within each other.
func nestedTxn(depth int) []byte {
	var backwards []byte // the innermost comes last, and its size is needed first
	for range depth {
		for _, field := range []protowire.Number{4, 2} { // RequestOp.request_txn in TxnRequest.success
			head := protowire.AppendVarint(protowire.AppendTag(nil, field, protowire.BytesType), uint64(len(backwards)))
			slices.Reverse(head)
			backwards = append(backwards, head...)
		}
	}
	slices.Reverse(backwards)
	return backwards
}

// If this fails, one request of a client without a login ends the process: a
// stack that grows beyond 1 GB cannot be recovered from.
func TestDeepTransactions(t *testing.T) {
	for depth, want := range map[int]string{50: "", 4000: "", 9_000: "recursion depth", 5_000_000: "recursion depth"} {
		var r pb.TxnRequest
		err := Codec{}.Unmarshal(mem.BufferSlice{mem.SliceBuffer(nestedTxn(depth))}, &r)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%d transactions within each other: %v, want %q", depth, err, want)
		}
	}
}
