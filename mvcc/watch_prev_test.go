package mvcc

import (
	"testing"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// If this fails, a watcher is told as the value before a transaction one that the transaction itself has put, and another
// watcher, which reads history, something else.
func TestPreviousValueIsOfTheRevisionBefore(t *testing.T) {
	s := openTest(t, testOptions())
	w := s.Write(s.Applied())
	_, err := w.Txn(&pb.TxnRequest{Success: []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}}},
		{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte{0}}}},
	}}, func(LeaseID) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	if n := len(s.events); n != 2 {
		t.Fatalf("%d events, want a put and a delete", n)
	}
	if e := s.events[1]; e.kind != EventDelete || e.prev != nil {
		t.Errorf("event %d with previous value %q", e.kind, e.prev)
	}
	w.Close()
}
