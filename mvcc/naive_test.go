package mvcc

import (
	"bytes"
	"cmp"
	"fmt"
	"hash/crc32"
	"slices"
	"sort"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// naive is the store as the specification tells it: every version in a list,
// every question answered by looking at all of them.
type naive struct {
	rev, compact Revision
	versions     []naiveVersion // in order
	others       map[string]string
	applied      Applied
}

type naiveVersion struct {
	main Revision
	sub  int
	tomb bool
	kv   *mvccpb.KeyValue
}

func newNaive() *naive {
	return &naive{rev: 1, compact: -1, others: map[string]string{}}
}

func (n *naive) clone() *naive {
	c := *n
	c.versions = slices.Clone(n.versions)
	c.others = map[string]string{}
	for k, v := range n.others {
		c.others[k] = v
	}
	return &c
}

func inNaive(k, key, end []byte) bool {
	switch {
	case len(end) == 0:
		return bytes.Equal(k, key)
	case len(end) == 1 && end[0] == 0:
		return bytes.Compare(k, key) >= 0
	}
	return bytes.Compare(k, key) >= 0 && bytes.Compare(k, end) < 0
}

// state returns what exists at the revision, in key order.
func (n *naive) state(rev Revision) []*mvccpb.KeyValue {
	m := map[string]*mvccpb.KeyValue{}
	for _, v := range n.versions {
		if v.main > rev {
			break
		}
		if v.tomb {
			delete(m, string(v.kv.Key))
		} else {
			m[string(v.kv.Key)] = v.kv
		}
	}
	kvs := make([]*mvccpb.KeyValue, 0, len(m))
	for _, kv := range m {
		kvs = append(kvs, kv)
	}
	sort.Slice(kvs, func(i, j int) bool { return bytes.Compare(kvs[i].Key, kvs[j].Key) < 0 })
	return kvs
}

// entry is one log entry being applied to the naive store.
type naiveEntry struct {
	n   *naive
	sub int
}

func (e *naiveEntry) rev() Revision {
	if e.sub > 0 {
		return e.n.rev + 1
	}
	return e.n.rev
}

func (e *naiveEntry) find(key []byte) *mvccpb.KeyValue {
	for _, kv := range e.n.state(e.n.rev + 1) {
		if bytes.Equal(kv.Key, key) {
			return kv
		}
	}
	return nil
}

func (e *naiveEntry) add(kv *mvccpb.KeyValue, tomb bool) {
	e.n.versions = append(e.n.versions, naiveVersion{e.n.rev + 1, e.sub, tomb, kv})
	e.sub++
}

func (e *naiveEntry) put(r *pb.PutRequest) (*pb.PutResponse, error) {
	prev := e.find(r.Key)
	if prev == nil && (r.IgnoreLease || r.IgnoreValue) {
		return nil, ErrKeyNotFound
	}
	main := int64(e.n.rev + 1)
	kv := &mvccpb.KeyValue{Key: r.Key, Value: r.Value, Lease: r.Lease, ModRevision: main, CreateRevision: main, Version: 1}
	resp := &pb.PutResponse{}
	if prev != nil {
		kv.CreateRevision, kv.Version = prev.CreateRevision, prev.Version+1
		if r.IgnoreLease {
			kv.Lease = prev.Lease
		}
		if r.IgnoreValue {
			kv.Value = prev.Value
		}
		if r.PrevKv {
			resp.PrevKv = prev
		}
	}
	e.add(kv, false)
	resp.Header = &pb.ResponseHeader{Revision: int64(e.rev())}
	return resp, nil
}

func (e *naiveEntry) deleteRange(r *pb.DeleteRangeRequest) *pb.DeleteRangeResponse {
	resp := &pb.DeleteRangeResponse{}
	for _, kv := range e.n.state(e.n.rev + 1) {
		if inNaive(kv.Key, r.Key, r.RangeEnd) {
			resp.Deleted++
			if r.PrevKv {
				resp.PrevKvs = append(resp.PrevKvs, kv)
			}
			e.add(&mvccpb.KeyValue{Key: kv.Key}, true)
		}
	}
	resp.Header = &pb.ResponseHeader{Revision: int64(e.rev())}
	return resp
}

func (n *naive) rangeAt(r *pb.RangeRequest, current Revision) (*pb.RangeResponse, error) {
	rev := Revision(r.Revision)
	switch {
	case rev <= 0:
		rev = current
	case rev > current:
		return nil, ErrFutureRevision
	case rev < n.compact:
		return nil, ErrCompacted
	}
	resp := &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: int64(current)}}
	var kept []*mvccpb.KeyValue
	for _, kv := range n.state(rev) {
		if !inNaive(kv.Key, r.Key, r.RangeEnd) {
			continue
		}
		resp.Count++
		m, c := kv.ModRevision, kv.CreateRevision
		if r.MinModRevision != 0 && m < r.MinModRevision || r.MaxModRevision != 0 && m > r.MaxModRevision ||
			r.MinCreateRevision != 0 && c < r.MinCreateRevision || r.MaxCreateRevision != 0 && c > r.MaxCreateRevision {
			continue
		}
		kept = append(kept, kv)
	}
	if r.CountOnly {
		return resp, nil
	}
	filtered := r.MinModRevision|r.MaxModRevision|r.MinCreateRevision|r.MaxCreateRevision != 0
	if r.SortOrder == pb.RangeRequest_NONE && !filtered && r.Limit > 0 && int64(len(kept)) > r.Limit {
		kept = kept[:r.Limit+1] // without an order only so many are sorted
	}
	naiveSort(kept, r)
	if r.Limit > 0 && int64(len(kept)) > r.Limit {
		kept, resp.More = kept[:r.Limit], true
	}
	for _, kv := range kept {
		c := &mvccpb.KeyValue{Key: kv.Key, Value: kv.Value, Lease: kv.Lease, Version: kv.Version, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision}
		if r.KeysOnly {
			c.Value = nil
			if r.SortTarget != pb.RangeRequest_VALUE {
				c.Lease = 0
			}
		}
		resp.Kvs = append(resp.Kvs, c)
	}
	return resp, nil
}

// naiveSort sorts by the library's algorithm, which is not stable: the order of
// ties is a part of the answer.
func naiveSort(kvs []*mvccpb.KeyValue, r *pb.RangeRequest) {
	order := func(a, b *mvccpb.KeyValue) int {
		switch r.SortTarget {
		case pb.RangeRequest_VERSION:
			return cmp.Compare(a.Version, b.Version)
		case pb.RangeRequest_CREATE:
			return cmp.Compare(a.CreateRevision, b.CreateRevision)
		case pb.RangeRequest_MOD:
			return cmp.Compare(a.ModRevision, b.ModRevision)
		case pb.RangeRequest_VALUE:
			return bytes.Compare(a.Value, b.Value)
		}
		return bytes.Compare(a.Key, b.Key)
	}
	slices.SortFunc(kvs, func(a, b *mvccpb.KeyValue) int {
		if r.SortOrder == pb.RangeRequest_DESCEND {
			a, b = b, a
		}
		return order(a, b)
	})
}

// txn applies the transaction to a copy and gives the copy back only if all of
// it can be done.
func (e *naiveEntry) txn(r *pb.TxnRequest, leases func(LeaseID) bool) (*pb.TxnResponse, error) {
	before := e.n.clone()
	beforeRev := e.rev()
	t := naiveEntry{n: e.n.clone(), sub: e.sub}
	resp, err := t.branch(r, before, beforeRev, leases)
	if err != nil {
		return nil, err
	}
	*e.n, e.sub = *t.n, t.sub
	resp.Header = &pb.ResponseHeader{Revision: int64(e.rev())}
	return resp, nil
}

func (e *naiveEntry) branch(r *pb.TxnRequest, before *naive, beforeRev Revision, leases func(LeaseID) bool) (*pb.TxnResponse, error) {
	ok := true
	for _, c := range r.Compare {
		ok = ok && before.holds(c)
	}
	ops := r.Failure
	if ok {
		ops = r.Success
	}
	resp := &pb.TxnResponse{Header: &pb.ResponseHeader{}, Succeeded: ok}
	for _, op := range ops {
		o := &pb.ResponseOp{}
		switch x := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			if Revision(x.RequestRange.Revision) > beforeRev {
				return nil, ErrFutureRevision
			}
			a, err := e.n.rangeAt(x.RequestRange, e.rev())
			if err != nil {
				return nil, err
			}
			o.Response = &pb.ResponseOp_ResponseRange{ResponseRange: a}
		case *pb.RequestOp_RequestPut:
			if x.RequestPut.Lease != 0 && !leases(LeaseID(x.RequestPut.Lease)) {
				return nil, ErrLeaseNotFound
			}
			a, err := e.put(x.RequestPut)
			if err != nil {
				return nil, err
			}
			o.Response = &pb.ResponseOp_ResponsePut{ResponsePut: a}
		case *pb.RequestOp_RequestDeleteRange:
			o.Response = &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: e.deleteRange(x.RequestDeleteRange)}
		case *pb.RequestOp_RequestTxn:
			a, err := e.branch(x.RequestTxn, before, beforeRev, leases)
			if err != nil {
				return nil, err
			}
			o.Response = &pb.ResponseOp_ResponseTxn{ResponseTxn: a}
		}
		resp.Responses = append(resp.Responses, o)
	}
	return resp, nil
}

func (n *naive) holds(c *pb.Compare) bool {
	var in []*mvccpb.KeyValue
	for _, kv := range n.state(n.rev + 1) {
		if inNaive(kv.Key, c.Key, c.RangeEnd) {
			in = append(in, kv)
		}
	}
	if len(in) == 0 {
		if c.Target == pb.Compare_VALUE {
			return false
		}
		in = []*mvccpb.KeyValue{{}}
	}
	for _, kv := range in {
		d := 0
		switch c.Target {
		case pb.Compare_VERSION:
			d = int(kv.Version - c.GetVersion())
		case pb.Compare_CREATE:
			d = int(kv.CreateRevision - c.GetCreateRevision())
		case pb.Compare_MOD:
			d = int(kv.ModRevision - c.GetModRevision())
		case pb.Compare_LEASE:
			d = int(kv.Lease - c.GetLease())
		case pb.Compare_VALUE:
			d = bytes.Compare(kv.Value, c.GetValue())
		}
		if !map[pb.Compare_CompareResult]bool{pb.Compare_EQUAL: d == 0, pb.Compare_NOT_EQUAL: d != 0, pb.Compare_GREATER: d > 0, pb.Compare_LESS: d < 0}[c.Result] {
			return false
		}
	}
	return true
}

// keeps says which versions a compaction to rev leaves.
func (n *naive) keeps(rev Revision) map[[2]int64]bool {
	newest := map[string]naiveVersion{}
	keep := map[[2]int64]bool{}
	for _, v := range n.versions {
		if v.main <= rev {
			newest[string(v.kv.Key)] = v
		} else {
			keep[[2]int64{int64(v.main), int64(v.sub)}] = true
		}
	}
	for _, v := range newest {
		if !v.tomb || v.main == rev {
			keep[[2]int64{int64(v.main), int64(v.sub)}] = true
		}
	}
	return keep
}

func (n *naive) compactTo(rev Revision) {
	keep := n.keeps(rev)
	n.compact = rev
	n.versions = slices.DeleteFunc(slices.Clone(n.versions), func(v naiveVersion) bool {
		return !keep[[2]int64{int64(v.main), int64(v.sub)}]
	})
}

// hashKV is the rule of the specification, word for word.
func (n *naive) hashKV(rev Revision) uint32 {
	newest := map[string]naiveVersion{}
	for _, v := range n.versions {
		if v.main <= rev {
			newest[string(v.kv.Key)] = v
		}
	}
	keep := map[string]bool{}
	for _, v := range newest {
		if !v.tomb {
			keep[fmt.Sprint(v.main, v.sub)] = true
		}
	}
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	h.Write([]byte("key"))
	for _, v := range n.versions {
		if v.main > rev || v.main <= n.compact && len(keep) > 0 && !keep[fmt.Sprint(v.main, v.sub)] || v.main == n.compact && v.tomb {
			continue
		}
		key := []byte{0, 0, 0, 0, 0, 0, byte(v.main >> 8), byte(v.main), '_', 0, 0, 0, 0, 0, 0, byte(v.sub >> 8), byte(v.sub)}
		if v.tomb {
			key = append(key, 't')
		}
		h.Write(key)
		b, err := v.kv.MarshalVT()
		if err != nil {
			panic(err)
		}
		h.Write(b)
	}
	return h.Sum32()
}
