package api

import (
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/internal/nesting"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// txnOf is a transaction with so many within it.
func txnOf(depth int) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for i := range depth {
		op := &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}}
		if r = (&pb.TxnRequest{Failure: []*pb.RequestOp{op}}); i%2 == 0 {
			r = &pb.TxnRequest{Success: []*pb.RequestOp{{}, op}, Compare: []*pb.Compare{{Key: []byte("k")}}}
		}
	}
	return r
}

// If this fails, one request of a client without a login ends the process, or
// transactions that etcd takes are refused.
func TestNesting(t *testing.T) {
	for depth, want := range map[int]bool{0: true, 1: true, nesting.TxnsMax - 1: true, nesting.TxnsMax: false, 4000: false} {
		b, err := proto.Marshal(txnOf(depth))
		if err != nil {
			t.Fatal(err)
		}
		if nesting.IsShallow(b) != want {
			t.Errorf("%d transactions within one: shallow %t", depth, !want)
		}
	}
	// A tag whose number is 2 only when its upper bits are cut off, as generated
	// code does.
	if nesting.IsShallow(protowire.AppendBytes(protowire.AppendVarint(nil, 2<<3|2|1<<40), nil)) {
		t.Error("a tag that is not valid was taken")
	}
}

// FuzzIsShallow: if it fails, bytes that generated code decodes deeper than the
// bound get past it, and can end the process.
func FuzzIsShallow(f *testing.F) {
	for _, depth := range []int{0, 3, nesting.TxnsMax + 1} {
		b, err := proto.Marshal(txnOf(depth))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &pb.TxnRequest{}
		if !nesting.IsShallow(b) || r.UnmarshalVT(b) != nil {
			return
		}
		if depth := depthOf(r); depth > nesting.TxnsMax {
			t.Errorf("%d transactions within each other", depth)
		}
	})
}

func depthOf(r *pb.TxnRequest) (depth int) {
	for _, ops := range [][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
		for _, op := range ops {
			if op.GetRequestTxn() != nil {
				depth = max(depth, 1+depthOf(op.GetRequestTxn()))
			}
		}
	}
	return depth
}

func BenchmarkIsShallow(b *testing.B) {
	op := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("key"), Value: make([]byte, 100)}}}
	data, err := proto.Marshal(&pb.TxnRequest{Success: []*pb.RequestOp{op, op}})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		nesting.IsShallow(data)
	}
}
