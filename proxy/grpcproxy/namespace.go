package grpcproxy

import (
	"bytes"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// namespace is the prefix that keys have in the cluster and clients do not see.
// Empty, it changes nothing. An empty key stays empty: the member refuses it.
type namespace []byte

func (n namespace) key(key []byte) []byte {
	if len(n) == 0 || len(key) == 0 {
		return key
	}
	return append(append(make([]byte, 0, len(n)+len(key)), n...), key...)
}

// name is the name of a lock or an election, from which members make keys. It may
// be empty.
func (n namespace) name(name []byte) []byte {
	return append(append(make([]byte, 0, len(n)+len(name)), n...), name...)
}

// end is the end of a range: an open one ends with the namespace.
func (n namespace) end(end []byte) []byte {
	if len(n) > 0 && len(end) == 1 && end[0] == 0 {
		return prefixEnd(n)
	}
	return n.key(end)
}

// prefixEnd is the first key after those with the prefix; \0, which means none,
// if there is no such key.
func prefixEnd(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return []byte{0}
}

// strip takes the prefix off keys that came from a member.
func (n namespace) strip(kvs ...*mvccpb.KeyValue) {
	for _, kv := range kvs {
		if kv != nil {
			kv.Key = bytes.TrimPrefix(kv.Key, n)
		}
	}
}

func (n namespace) stripEvents(events []*mvccpb.Event) {
	if len(n) == 0 {
		return
	}
	for _, e := range events {
		n.strip(e.Kv, e.PrevKv)
	}
}

// The requests are the proxy's own copies and are changed in place.

func (n namespace) rangeRequest(r *pb.RangeRequest) {
	r.Key, r.RangeEnd = n.key(r.Key), n.end(r.RangeEnd)
}

func (n namespace) put(r *pb.PutRequest) { r.Key = n.key(r.Key) }

func (n namespace) deleteRange(r *pb.DeleteRangeRequest) {
	r.Key, r.RangeEnd = n.key(r.Key), n.end(r.RangeEnd)
}

func (n namespace) txn(r *pb.TxnRequest) {
	if len(n) == 0 {
		return
	}
	for _, c := range r.Compare {
		c.Key, c.RangeEnd = n.key(c.Key), n.end(c.RangeEnd)
	}
	for _, branch := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range branch {
			switch u := op.Request.(type) {
			case *pb.RequestOp_RequestRange:
				n.rangeRequest(u.RequestRange)
			case *pb.RequestOp_RequestPut:
				n.put(u.RequestPut)
			case *pb.RequestOp_RequestDeleteRange:
				n.deleteRange(u.RequestDeleteRange)
			case *pb.RequestOp_RequestTxn:
				n.txn(u.RequestTxn)
			}
		}
	}
}

func (n namespace) stripTxn(r *pb.TxnResponse) {
	if len(n) == 0 {
		return
	}
	for _, op := range r.Responses {
		switch u := op.Response.(type) {
		case *pb.ResponseOp_ResponseRange:
			n.strip(u.ResponseRange.Kvs...)
		case *pb.ResponseOp_ResponsePut:
			n.strip(u.ResponsePut.PrevKv)
		case *pb.ResponseOp_ResponseDeleteRange:
			n.strip(u.ResponseDeleteRange.PrevKvs...)
		case *pb.ResponseOp_ResponseTxn:
			n.stripTxn(u.ResponseTxn)
		}
	}
}
