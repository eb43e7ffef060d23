package api

import (
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// FuzzUnmarshal: if it fails, a client ends the process with a request, or a
// request is proposed that other members cannot read.
func FuzzUnmarshal(f *testing.F) {
	f.Add(nestedTxn(3))
	f.Add(nestedTxn(300))
	f.Add([]byte{0x0a, 1, 'k'})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range []proto.Message{&pb.TxnRequest{}, &pb.PutRequest{}, &pb.RangeRequest{}, &pb.WatchRequest{}, &pb.LeaseGrantRequest{}, &pb.AuthUserAddRequest{}} {
			if (Codec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, m) != nil {
				continue
			}
			if _, err := proto.Marshal(m); err != nil {
				t.Errorf("%T cannot be written again: %v", m, err)
			}
		}
	})
}

// FuzzDowngradeTarget: if it fails, the version in a request ends the process.
func FuzzDowngradeTarget(f *testing.F) {
	f.Add("3.6.0")
	f.Add("3.")
	f.Fuzz(func(t *testing.T, text string) {
		if v, err := parseTarget(text); err == nil && v == nil {
			t.Errorf("%q is nothing", text)
		}
	})
}
