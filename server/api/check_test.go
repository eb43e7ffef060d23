package api

import (
	"errors"
	"testing"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

func put(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}}
}

func del(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
}

func get(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key)}}}
}

func ops(list ...*pb.RequestOp) []*pb.RequestOp { return list }

func nested(success, failure []*pb.RequestOp) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: success, Failure: failure}}}
}

// If this fails, a transaction that writes a key twice is let through, or one
// that does not is refused.
func TestDuplicateKeys(t *testing.T) {
	for _, c := range []struct {
		name    string
		success []*pb.RequestOp
		bad     bool
	}{
		{"two puts of one key", ops(put("a"), put("a")), true},
		{"two keys", ops(put("a"), put("b")), false},
		{"put then delete", ops(put("a"), del("a", "")), true},
		{"delete then put", ops(del("a", ""), put("a")), true},
		{"put inside a deleted range", ops(del("a", "c"), put("b")), true},
		{"put at the end of a deleted range", ops(del("a", "c"), put("c")), false},
		{"put behind a delete from key", ops(del("a", "\x00"), put("z")), false},
		{"overlapping deletes", ops(del("a", "c"), del("b", "d")), false},
		{"gets do not matter", ops(get("a"), put("a"), get("a")), false},
		{"both branches of a nested one", ops(nested(ops(put("a")), ops(put("a")))), false},
		{"nested put and parent put", ops(put("a"), nested(ops(put("a")), nil)), true},
		{"nested put and parent delete", ops(del("a", ""), nested(nil, ops(put("a")))), true},
		{"nested delete and parent put", ops(put("a"), nested(ops(del("a", "")), nil)), true},
		{"puts of two siblings", ops(nested(ops(put("a")), nil), nested(ops(put("a")), nil)), true},
		{"sibling puts what an earlier one deletes", ops(nested(ops(del("a", "")), nil), nested(ops(put("a")), nil)), true},
		{"sibling deletes what an earlier one puts", ops(nested(ops(put("a")), nil), nested(ops(del("a", "")), nil)), false},
		{"twice within one nested branch", ops(nested(nil, ops(put("a"), put("a")))), true},
	} {
		for _, r := range []*pb.TxnRequest{{Success: c.success}, {Failure: c.success}} {
			if err := checkTxn(r, 128); errors.Is(err, ErrDuplicateKey) != c.bad || (err != nil && !c.bad) {
				t.Errorf("%s: error %v, want one: %t", c.name, err, c.bad)
			}
		}
	}
}

// If this fails, one client can make a member run a transaction without bound.
func TestTxnOpsLimit(t *testing.T) {
	many := func(n int) (list []*pb.RequestOp) {
		for range n {
			list = append(list, get("k"))
		}
		return list
	}
	compares := make([]*pb.Compare, 5)
	for i := range compares {
		compares[i] = &pb.Compare{Key: []byte("k")}
	}
	for _, c := range []struct {
		name string
		r    *pb.TxnRequest
		want error
	}{
		{"at the limit", &pb.TxnRequest{Success: many(4), Failure: many(4)}, nil},
		{"above", &pb.TxnRequest{Failure: many(5)}, ErrTooManyOps},
		{"compares count", &pb.TxnRequest{Compare: compares}, ErrTooManyOps},
		{"nested gets what is left", &pb.TxnRequest{Success: ops(nested(many(3), nil))}, nil},
		{"nested above what is left", &pb.TxnRequest{Success: ops(nested(many(4), nil))}, ErrTooManyOps},
		{"empty compare key", &pb.TxnRequest{Compare: []*pb.Compare{{}}}, ErrKeyEmpty},
		{"unset operation", &pb.TxnRequest{Success: ops(&pb.RequestOp{})}, ErrOpUnset},
		{"bad operation in the branch not taken", &pb.TxnRequest{Failure: ops(put(""))}, ErrKeyEmpty},
	} {
		if err := checkTxn(c.r, 4); !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", c.name, err, c.want)
		}
	}
}

// If this fails, a read goes through the log, or a write is answered without it.
func TestReadOnlyTxns(t *testing.T) {
	serializable := get("a")
	serializable.GetRequestRange().Serializable = true
	for _, c := range []struct {
		name                string
		r                   *pb.TxnRequest
		reads, serializable bool
	}{
		{"empty", &pb.TxnRequest{}, true, true},
		{"gets", &pb.TxnRequest{Success: ops(get("a")), Failure: ops(get("b"))}, true, false},
		{"serializable gets", &pb.TxnRequest{Success: ops(serializable)}, true, true},
		{"one of two serializable", &pb.TxnRequest{Success: ops(serializable), Failure: ops(get("b"))}, true, false},
		{"put", &pb.TxnRequest{Failure: ops(put("a"))}, false, false},
		{"nested", &pb.TxnRequest{Success: ops(nested(nil, nil))}, false, false},
	} {
		if reads := onlyReads(c.r); reads != c.reads {
			t.Errorf("%s: onlyReads %t", c.name, reads)
		} else if reads && onlySerializable(c.r) != c.serializable {
			t.Errorf("%s: onlySerializable %t", c.name, !c.serializable)
		}
	}
}

// If this fails, the quota lets in more than it says.
func TestCosts(t *testing.T) {
	p := &pb.PutRequest{Key: []byte("abc"), Value: make([]byte, 1000)}
	if cost := putCost(p); cost != 256+3+1000 {
		t.Errorf("put costs %d", cost)
	}
	op := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: p}}
	r := &pb.TxnRequest{Success: ops(op), Failure: ops(nested(ops(op, put("x")), nil))}
	if cost := txnCost(r); cost != 1259+257 {
		t.Errorf("txn costs %d, want the dearer branch", cost)
	}
}
