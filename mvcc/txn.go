package mvcc

import (
	"bytes"
	"cmp"

	"github.com/kvorum/kvorum/internal/must"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// txn is one run of a transaction request. First every compare that decides
// is evaluated and every operation of the chosen branches checked, all against
// the state before the transaction; only then is anything changed.
type txn struct {
	view        *view   // before the transaction
	w           *Writer // nil: read-only
	leaseExists func(LeaseID) bool
	verdicts    []bool // of the chosen transactions, depth first
}

func (t *txn) run(r *pb.TxnRequest) (*pb.TxnResponse, error) {
	if err := t.choose(r); err != nil {
		return nil, err
	}
	if err := t.check(r, &verdictReader{left: t.verdicts}); err != nil {
		return nil, err
	}
	resp, err := t.apply(r, &verdictReader{left: t.verdicts})
	if err != nil {
		return nil, err
	}
	resp.Header = t.header()
	return resp, nil
}

// now is the picture that the next operation sees.
func (t *txn) now() *view {
	if t.w == nil {
		return t.view
	}
	return t.w.view()
}

func (t *txn) header() *pb.ResponseHeader {
	if t.w == nil {
		return &pb.ResponseHeader{Revision: int64(t.view.rev)}
	}
	return &pb.ResponseHeader{Revision: int64(t.w.rev())}
}

// verdictReader hands out verdicts in the order in which choose found them.
type verdictReader struct{ left []bool }

func (v *verdictReader) next() bool {
	ok := v.left[0]
	v.left = v.left[1:]
	return ok
}

func branch(r *pb.TxnRequest, succeeded bool) []*pb.RequestOp {
	if succeeded {
		return r.Success
	}
	return r.Failure
}

// choose evaluates the compares of the transaction and of those nested in the
// chosen branch.
func (t *txn) choose(r *pb.TxnRequest) error {
	succeeded := true
	for _, c := range r.Compare {
		ok, err := t.view.holds(c)
		if err != nil {
			return err
		}
		if !ok {
			succeeded = false
			break
		}
	}
	t.verdicts = append(t.verdicts, succeeded)
	for _, op := range branch(r, succeeded) {
		if nested, ok := op.Request.(*pb.RequestOp_RequestTxn); ok {
			if err := t.choose(nested.RequestTxn); err != nil {
				return err
			}
		}
	}
	return nil
}

// check finds the errors that operations of the chosen branches would meet.
func (t *txn) check(r *pb.TxnRequest, v *verdictReader) error {
	for _, op := range branch(r, v.next()) {
		var err error
		switch x := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			err = t.checkRange(x.RequestRange)
		case *pb.RequestOp_RequestPut:
			err = t.checkPut(x.RequestPut)
		case *pb.RequestOp_RequestTxn:
			err = t.check(x.RequestTxn, v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkRange: unlike a Range on its own, one in a transaction takes a negative revision for one that is compacted, as
// etcd does.
func (t *txn) checkRange(r *pb.RangeRequest) error {
	rev := Revision(r.Revision)
	if rev < 0 && rev < t.view.compact {
		return ErrCompacted
	}
	_, err := t.view.readable(rev)
	return err
}

func (t *txn) checkPut(r *pb.PutRequest) error {
	if r.Lease != 0 && !t.leaseExists(LeaseID(r.Lease)) {
		return ErrLeaseNotFound
	}
	if r.IgnoreValue || r.IgnoreLease {
		if it := t.view.tree.get(stringOf(r.Key)); it == nil || !it.live() {
			return ErrKeyNotFound
		}
	}
	return nil
}

// apply carries the chosen branch out. The answer of a nested transaction has
// an empty header.
func (t *txn) apply(r *pb.TxnRequest, v *verdictReader) (*pb.TxnResponse, error) {
	succeeded := v.next()
	ops := branch(r, succeeded)
	resp := &pb.TxnResponse{Header: &pb.ResponseHeader{}, Succeeded: succeeded, Responses: make([]*pb.ResponseOp, len(ops))}
	for i, op := range ops {
		answer, err := t.applyOp(op, v)
		if err != nil {
			return nil, err
		}
		resp.Responses[i] = answer
	}
	return resp, nil
}

func (t *txn) applyOp(op *pb.RequestOp, v *verdictReader) (*pb.ResponseOp, error) {
	switch x := op.Request.(type) {
	case *pb.RequestOp_RequestRange:
		resp, err := t.now().rangeOf(x.RequestRange)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: resp}}, err
	case *pb.RequestOp_RequestPut:
		must.True(t.w != nil, "put in a read-only transaction")
		resp, err := t.w.put(x.RequestPut)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: resp}}, err
	case *pb.RequestOp_RequestDeleteRange:
		must.True(t.w != nil, "delete in a read-only transaction")
		resp, err := t.w.deleteRange(x.RequestDeleteRange)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: resp}}, err
	case *pb.RequestOp_RequestTxn:
		resp, err := t.apply(x.RequestTxn, v)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: resp}}, err
	}
	return &pb.ResponseOp{}, nil
}

// holds evaluates one compare: for a range, every key must satisfy it, and an
// empty range is like a missing key.
func (v *view) holds(c *pb.Compare) (bool, error) {
	sp, single := spanOf(c.Key, c.RangeEnd)
	if single {
		it := v.tree.get(sp.from)
		if it != nil && !it.live() {
			it = nil
		}
		return v.satisfies(c, it)
	}
	ok, any := true, false
	var err error
	v.tree.ascend(sp, true, func(it *item) bool {
		any = true
		ok, err = v.satisfies(c, it)
		return ok && err == nil
	})
	if !any {
		return v.satisfies(c, nil)
	}
	return ok, err
}

// satisfies compares one key; a nil item is a missing key, whose numbers are 0
// and whose value satisfies nothing.
func (v *view) satisfies(c *pb.Compare, it *item) (bool, error) {
	var order int
	switch c.Target {
	case pb.Compare_VALUE:
		if it == nil {
			return false, nil
		}
		kv, err := v.keyValue(it.at)
		if err != nil {
			return false, err
		}
		order = bytes.Compare(kv.Value, c.GetValue())
	default:
		order = compareNumber(c, it)
	}
	switch c.Result {
	case pb.Compare_EQUAL:
		return order == 0, nil
	case pb.Compare_NOT_EQUAL:
		return order != 0, nil
	case pb.Compare_GREATER:
		return order > 0, nil
	case pb.Compare_LESS:
		return order < 0, nil
	}
	return true, nil
}

// compareNumber compares the target that is a number; an unknown target is
// equal to anything.
func compareNumber(c *pb.Compare, it *item) int {
	if it == nil {
		it = &item{}
	}
	switch c.Target {
	case pb.Compare_VERSION:
		return cmp.Compare(it.version, c.GetVersion())
	case pb.Compare_CREATE:
		return cmp.Compare(int64(it.create), c.GetCreateRevision())
	case pb.Compare_MOD:
		return cmp.Compare(int64(it.at.main), c.GetModRevision())
	case pb.Compare_LEASE:
		return cmp.Compare(int64(it.lease), c.GetLease())
	}
	return 0
}
