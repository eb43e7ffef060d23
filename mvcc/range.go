package mvcc

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// Range answers a range request from the newest view. Of the header only the
// revision is set. The answer's keys and values are immutable.
func (s *Store) Range(r *pb.RangeRequest) (*pb.RangeResponse, error) {
	s.counts.ranges.Add(1)
	if resp, ok := s.rangeAnchored(r); ok {
		return resp, nil
	}
	return settled(s, Revision(r.Revision), func(v *view) (*pb.RangeResponse, error) {
		resp, err := v.rangeOf(r)
		if err == nil && resp.More && (r.Revision <= 0 || Revision(r.Revision) == v.rev) {
			s.anchors.keep(v) // more pages of this revision will be wanted
		}
		return resp, err
	})
}

// hit is one key of an answer and the version that is meant.
type hit struct {
	it *item
	at stamp
}

// newest reports whether the item describes this version itself.
func (h hit) newest() bool { return h.at == h.it.at }

// rangeOf answers a range request. Inside a write it is called on a view of
// the unfinished entry.
func (v *view) rangeOf(r *pb.RangeRequest) (*pb.RangeResponse, error) {
	rev, err := v.readable(Revision(r.Revision))
	if err != nil {
		return nil, err
	}
	sp, single := spanOf(r.Key, r.RangeEnd)
	if single {
		return v.rangeOne(r, rev)
	}
	resp := &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: int64(v.rev)}}
	if r.CountOnly {
		_, n := v.hits(sp, rev, page{none: true})
		resp.Count = int64(n)
		return resp, nil
	}
	p := planOf(r)
	found, n := v.hits(sp, rev, p.page())
	resp.Count = int64(n)
	resp.More = !p.whole && p.limit > 0 && n > p.limit
	if !p.whole {
		if p.reverse {
			slices.Reverse(found)
		}
		resp.Kvs, err = v.keyValues(found, r.KeysOnly)
		return resp, err
	}
	if p.needsRecords(rev < v.rev) {
		resp.Kvs, resp.More, err = v.rangeByRecords(found, r, p)
		return resp, err
	}
	found, resp.More = p.applyToHits(found)
	resp.Kvs, err = v.keyValues(found, r.KeysOnly)
	return resp, err
}

// oneAnswer is all that the answer for a single key consists of, in one
// allocation.
type oneAnswer struct {
	resp   pb.RangeResponse
	header pb.ResponseHeader
	kv     mvccpb.KeyValue
	kvs    [1]*mvccpb.KeyValue
}

func (v *view) rangeOne(r *pb.RangeRequest, rev Revision) (*pb.RangeResponse, error) {
	a := &oneAnswer{}
	a.header.Revision = int64(v.rev)
	a.resp.Header = &a.header
	it := v.tree.get(stringOf(r.Key))
	if it == nil {
		return &a.resp, nil
	}
	at, ok := it.stampAt(rev)
	if !ok {
		return &a.resp, nil
	}
	a.resp.Count = 1
	if r.CountOnly {
		return &a.resp, nil
	}
	h := hit{it, at}
	if r.KeysOnly && h.newest() && r.SortTarget != pb.RangeRequest_VALUE {
		h.fill(&a.kv)
	} else {
		data, err := v.record(at)
		if err != nil {
			return nil, err
		}
		if err := decodeRecord(data, &a.kv); err != nil {
			return nil, err
		}
		if r.KeysOnly {
			dropValue(&a.kv, r.SortTarget)
		}
	}
	if !planOf(r).admits(&a.kv) {
		return &a.resp, nil
	}
	a.kvs[0] = &a.kv
	a.resp.Kvs = a.kvs[:]
	return &a.resp, nil
}

// fill sets what the index knows of the version.
func (h hit) fill(kv *mvccpb.KeyValue) {
	kv.Key = bytesOf(h.it.key)
	kv.CreateRevision = int64(h.it.create)
	kv.ModRevision = int64(h.at.main)
	kv.Version = h.it.version
}

// dropValue makes a keys-only answer of a full one. The lease goes too, as it
// does when the index answers, except when sorting by value needed records.
func dropValue(kv *mvccpb.KeyValue, target pb.RangeRequest_SortTarget) {
	kv.Value = nil
	if target != pb.RangeRequest_VALUE {
		kv.Lease = 0
	}
}

// page says which hits of a span are wanted.
type page struct {
	none    bool // only the count
	limit   int  // 0: all
	fromEnd bool // the last ones instead of the first
}

// hits returns the wanted keys of the span at the revision, in key order, and
// how many there are in all. At the newest revision the counts in the tree
// make that as cheap as the page; at an older one every key of the span is
// looked at.
func (v *view) hits(sp span, rev Revision, p page) (found []hit, total int) {
	if rev < v.rev {
		return v.oldHits(sp, rev, p)
	}
	total = v.tree.count(sp)
	n := total
	if p.limit > 0 && p.limit < n {
		n = p.limit
	}
	if p.none || n == 0 {
		return nil, total
	}
	if p.fromEnd && n < total {
		sp.from = v.tree.nth(v.tree.rank(sp.from) + total - n).key
	}
	found = make([]hit, 0, n)
	v.tree.ascend(sp, true, func(it *item) bool {
		found = append(found, hit{it, it.at})
		return len(found) < n
	})
	return found, total
}

func (v *view) oldHits(sp span, rev Revision, p page) (found []hit, total int) {
	v.tree.ascend(sp, false, func(it *item) bool {
		at, ok := it.stampAt(rev)
		if !ok {
			return true
		}
		total++
		if !p.none && (p.limit == 0 || p.fromEnd || len(found) < p.limit) {
			found = append(found, hit{it, at})
		}
		return true
	})
	if p.fromEnd && p.limit > 0 && len(found) > p.limit {
		found = found[len(found)-p.limit:]
	}
	return found, total
}

// keyValues returns the hits as they are answered: all messages in one slab,
// their keys and values aliasing the records.
func (v *view) keyValues(found []hit, keysOnly bool) ([]*mvccpb.KeyValue, error) {
	if len(found) == 0 {
		return nil, nil
	}
	slab := make([]mvccpb.KeyValue, len(found))
	kvs := make([]*mvccpb.KeyValue, len(found))
	ats := make([]stamp, 0, len(found))
	for i, h := range found {
		kvs[i] = &slab[i]
		if keysOnly && h.newest() {
			h.fill(kvs[i])
			continue
		}
		ats = append(ats, h.at)
	}
	data, err := v.records(ats)
	if err != nil {
		return nil, err
	}
	n := 0
	for i, h := range found {
		if keysOnly && h.newest() {
			continue
		}
		if err := decodeRecord(data[n], kvs[i]); err != nil {
			return nil, err
		}
		if keysOnly {
			dropValue(kvs[i], pb.RangeRequest_KEY)
		}
		n++
	}
	return kvs, nil
}

// plan is how a request's order, filters and limit are carried out.
type plan struct {
	limit                                int // 0: none
	target                               pb.RangeRequest_SortTarget
	reverse                              bool
	whole                                bool // order or filters come before the limit
	window                               int  // of a whole one: how many keys are ordered and limited; 0: all
	minMod, maxMod, minCreate, maxCreate int64
}

func planOf(r *pb.RangeRequest) plan {
	p := plan{
		limit: int(max(r.Limit, 0)), target: r.SortTarget,
		reverse: r.SortOrder == pb.RangeRequest_DESCEND,
		minMod:  r.MinModRevision, maxMod: r.MaxModRevision,
		minCreate: r.MinCreateRevision, maxCreate: r.MaxCreateRevision,
	}
	p.whole = p.target != pb.RangeRequest_KEY || p.filtered()
	if r.SortOrder == pb.RangeRequest_NONE && !p.filtered() && p.limit > 0 {
		// As in etcd: a target without an order sorts only the first keys of the range, one more than will be given out.
		p.window = p.limit + 1
	}
	return p
}

func (p plan) filtered() bool { return p.minMod|p.maxMod|p.minCreate|p.maxCreate != 0 }

func (p plan) page() page {
	if p.whole {
		return page{limit: p.window}
	}
	return page{limit: p.limit, fromEnd: p.reverse}
}

// needsRecords reports whether order and filters need more than the index
// knows of the versions.
func (p plan) needsRecords(old bool) bool {
	switch p.target {
	case pb.RangeRequest_VALUE:
		return true
	case pb.RangeRequest_CREATE, pb.RangeRequest_VERSION:
		return old
	}
	return old && p.minCreate|p.maxCreate != 0
}

func (p plan) admitsRevisions(create, mod int64) bool {
	return (p.minMod == 0 || mod >= p.minMod) && (p.maxMod == 0 || mod <= p.maxMod) &&
		(p.minCreate == 0 || create >= p.minCreate) && (p.maxCreate == 0 || create <= p.maxCreate)
}

func (p plan) admits(kv *mvccpb.KeyValue) bool {
	return p.admitsRevisions(kv.CreateRevision, kv.ModRevision)
}

// applyToHits filters, sorts and limits what the index can judge.
func (p plan) applyToHits(found []hit) (kept []hit, more bool) {
	if p.filtered() {
		found = slices.DeleteFunc(found, func(h hit) bool {
			return !p.admitsRevisions(int64(h.it.create), int64(h.at.main))
		})
	}
	// Not stable, and by the library's algorithm, so that even ties come as from etcd.
	slices.SortFunc(found, p.direct(func(a, b hit) int {
		switch p.target {
		case pb.RangeRequest_VERSION:
			return cmp.Compare(a.it.version, b.it.version)
		case pb.RangeRequest_CREATE:
			return cmp.Compare(a.it.create, b.it.create)
		case pb.RangeRequest_MOD:
			return cmp.Compare(a.at.main, b.at.main)
		}
		return strings.Compare(a.it.key, b.it.key)
	}))
	return limited(found, p.limit)
}

// direct turns the order round when the request wants it descending.
func (p plan) direct(order func(a, b hit) int) func(a, b hit) int {
	if !p.reverse {
		return order
	}
	return func(a, b hit) int { return order(b, a) }
}

// rangeByRecords answers when the values or old create revisions decide the
// order or the filters: it reads every hit.
func (v *view) rangeByRecords(found []hit, r *pb.RangeRequest, p plan) ([]*mvccpb.KeyValue, bool, error) {
	kvs, err := v.keyValues(found, false)
	if err != nil {
		return nil, false, err
	}
	kvs = slices.DeleteFunc(kvs, func(kv *mvccpb.KeyValue) bool { return !p.admits(kv) })
	slices.SortFunc(kvs, func(a, b *mvccpb.KeyValue) int {
		if p.reverse {
			a, b = b, a
		}
		switch p.target {
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
	})
	kvs, more := limited(kvs, p.limit)
	if r.KeysOnly {
		for _, kv := range kvs {
			dropValue(kv, p.target)
		}
	}
	return kvs, more, nil
}

func limited[T any](s []T, limit int) ([]T, bool) {
	if limit > 0 && len(s) > limit {
		return s[:limit], true
	}
	return s, false
}
