package grpcproxy

import (
	"testing"

	"google.golang.org/grpc/mem"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// FuzzUnmarshal: if it fails, a client or a member ends the proxy with a message.
func FuzzUnmarshal(f *testing.F) {
	f.Add([]byte{0x12, 2, 0x22, 0})
	f.Add([]byte{0x0a, 1, 'k'})
	f.Fuzz(func(_ *testing.T, b []byte) {
		for _, m := range []any{&pb.TxnRequest{}, &pb.RangeRequest{}, &pb.WatchRequest{}, &pb.WatchResponse{}, &pb.AuthenticateRequest{}} {
			_ = codec{}.Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, m) // an error is an answer
		}
	})
}
