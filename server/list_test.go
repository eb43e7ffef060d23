package server

import (
	"bytes"
	"fmt"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// If this fails, a list that fills several buffers lacks keys, has some twice, or holds bytes of another answer.
func TestListsOfEverySize(t *testing.T) {
	m := startMember(t, nil)
	kv := pb.NewKVClient(m.conn)
	const keys = 2600
	want := make([][]byte, keys)
	for i := range want {
		size := i % 50
		if i%500 == 0 {
			size = 700 << 10 // two of these do not fit into one buffer
		}
		want[i] = bytes.Repeat([]byte{byte(i)}, size)
		must[*pb.PutResponse](t)(kv.Put(m.ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "list/%04d", i), Value: want[i]}))
	}
	for _, r := range []*pb.RangeRequest{
		{}, {Limit: 1}, {Limit: 10}, {Limit: 1024}, {Limit: 1025}, {Limit: 2000, SortOrder: pb.RangeRequest_DESCEND}, {SortOrder: pb.RangeRequest_DESCEND},
		{Serializable: true}, {Limit: 1500, SortTarget: pb.RangeRequest_MOD, SortOrder: pb.RangeRequest_DESCEND},
	} {
		r.Key, r.RangeEnd = []byte("list/"), []byte("list0")
		for range 3 { // buffers are used again
			a := must[*pb.RangeResponse](t)(kv.Range(m.ctx, r, grpc.MaxCallRecvMsgSize(64<<20)))
			n := keys
			if r.Limit > 0 {
				n = int(r.Limit)
			}
			if len(a.Kvs) != n || a.Count != keys || a.More != (n < keys) || a.Header.Revision != keys+1 || a.Header.MemberId != uint64(m.self) {
				t.Fatalf("%v: %d keys of %d, more %t, header %v", r, len(a.Kvs), a.Count, a.More, a.Header)
			}
			for i, got := range a.Kvs {
				at := i
				if r.SortOrder == pb.RangeRequest_DESCEND {
					at = keys - 1 - i
				}
				if string(got.Key) != fmt.Sprintf("list/%04d", at) || !bytes.Equal(got.Value, want[at]) || got.Version != 1 || got.ModRevision != int64(at)+2 {
					t.Fatalf("%v: key %d is %s, with %d bytes", r, i, got.Key, len(got.Value))
				}
			}
		}
	}
	a := must[*pb.RangeResponse](t)(kv.Range(m.ctx, &pb.RangeRequest{Key: []byte("none/"), RangeEnd: []byte("none0")}))
	if len(a.Kvs) != 0 || a.Count != 0 || a.More || a.Header.Revision != keys+1 {
		t.Errorf("a list of nothing: %v", a)
	}
	if _, err := kv.Range(m.ctx, &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("b"), Revision: 1 << 40}); status.Code(err) != codes.OutOfRange {
		t.Errorf("a list of the future: %v", err)
	}
}
