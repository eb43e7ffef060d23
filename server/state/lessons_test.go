package state

import (
	"fmt"
	"strings"
	"testing"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// If this fails, a request that one member's settings let through stops or splits
// the others: what is in the log is applied everywhere, whatever a member's own
// limits, disk or history are.
func TestTxnThatOneMemberLetIn(t *testing.T) {
	members := []*member{newMember(t), newMember(t)}
	apply := func(what string, r *pb.InternalRaftRequest) Result {
		t.Helper()
		var results []Result
		for _, m := range members {
			results = append(results, m.command(Caller{}, r))
			m.store.Publish()
		}
		if a, b := describe(results[0]), describe(results[1]); a != b {
			t.Fatalf("%s: one member says %.300s, the other %.300s", what, a, b)
		}
		if a, b := members[0].image()+members[0].memory(), members[1].image()+members[1].memory(); a != b {
			t.Fatalf("%s leaves one member with\n%.2000s\nand the other with\n%.2000s", what, a, b)
		}
		return results[0]
	}
	put := func(key, value string, lease int64) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte(value), Lease: lease}}}
	}
	txn := func(ops ...*pb.RequestOp) *pb.InternalRaftRequest {
		return &pb.InternalRaftRequest{Txn: &pb.TxnRequest{Success: ops}}
	}
	nested := func(ops ...*pb.RequestOp) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: ops}}}
	}
	var many []*pb.RequestOp
	for i := range 1000 { // --max-txn-ops is 128 elsewhere
		many = append(many, put(fmt.Sprintf("many/%d", i), "x", 0))
	}
	if r := apply("a large number of operations", txn(many...)); r.Err != nil {
		t.Errorf("a txn of 1000 operations that is in the log was refused: %v", r.Err)
	}
	members[1].restart()                                                                             // from here on its memory was read from disk, the other's was not
	if r := apply("a large value", txn(put("large", strings.Repeat("x", 3<<20), 0))); r.Err != nil { // --max-request-bytes is 1.5 MiB elsewhere
		t.Errorf("a value of 3 MiB that is in the log was refused: %v", r.Err)
	}
	before := members[0].store.Revision()
	if r := apply("an unknown lease at the end", txn(put("a", "x", 0), nested(put("b", "x", 0), put("c", "x", 77)))); r.Err == nil {
		t.Error("an unknown lease was taken")
	}
	if r := apply("the same key twice, refused elsewhere", txn(put("d", "1", 0), nested(put("d", "2", 0)))); r.Err != nil {
		t.Errorf("%v", r.Err)
	}
	members[0].restart()
	apply("a read of the past in a write", txn(put("e", "x", 0), &pb.RequestOp{Request: &pb.RequestOp_RequestRange{
		RequestRange: &pb.RangeRequest{Key: []byte("e"), Revision: 1 << 40}}}))
	if after := members[0].store.Revision(); after != before+1 {
		t.Errorf("refused transactions have made %d revisions", after-before-1)
	}
	apply("an alarm", &pb.InternalRaftRequest{Alarm: &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: 1, Alarm: pb.AlarmType_NOSPACE}})
	members[1].restart()
	if r := apply("a put under the alarm", txn(put("f", "x", 0))); r.Err == nil {
		t.Error("a put was taken under the alarm")
	}
}
