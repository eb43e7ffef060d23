package api

import (
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// What one request costs of the quota beyond its key and value.
const (
	putOverheadBytes = 256
	leaseCostBytes   = 64
)

func checkRange(r *pb.RangeRequest) error {
	if len(r.Key) == 0 {
		return ErrKeyEmpty
	}
	_, order := pb.RangeRequest_SortOrder_name[int32(r.SortOrder)]
	_, target := pb.RangeRequest_SortTarget_name[int32(r.SortTarget)]
	if !order || !target {
		return ErrSortOption
	}
	return nil
}

func checkRangeStream(r *pb.RangeRequest) error {
	if err := checkRange(r); err != nil {
		return err
	}
	natural := r.SortTarget == pb.RangeRequest_KEY && r.SortOrder == pb.RangeRequest_ASCEND
	if r.SortOrder != pb.RangeRequest_NONE && !natural {
		return ErrStreamSort
	}
	if r.MinModRevision != 0 || r.MaxModRevision != 0 || r.MinCreateRevision != 0 || r.MaxCreateRevision != 0 {
		return ErrStreamFilters
	}
	return nil
}

func checkPut(r *pb.PutRequest) error {
	switch {
	case len(r.Key) == 0:
		return ErrKeyEmpty
	case r.IgnoreValue && len(r.Value) != 0:
		return ErrValueProvided
	case r.IgnoreLease && r.Lease != 0:
		return ErrLeaseProvided
	}
	return nil
}

func checkDelete(r *pb.DeleteRangeRequest) error {
	if len(r.Key) == 0 {
		return ErrKeyEmpty
	}
	return nil
}

func putCost(r *pb.PutRequest) int { return putOverheadBytes + len(r.Key) + len(r.Value) }

// txnCost is the cost of the dearer branch.
func txnCost(r *pb.TxnRequest) int { return max(opsCost(r.Success), opsCost(r.Failure)) }

func opsCost(ops []*pb.RequestOp) int {
	cost := 0
	for _, op := range ops {
		switch o := op.Request.(type) {
		case *pb.RequestOp_RequestPut:
			cost += putCost(o.RequestPut)
		case *pb.RequestOp_RequestTxn:
			cost += txnCost(o.RequestTxn)
		}
	}
	return cost
}

// checkTxn checks every operation of both branches, the number of operations
// and that no branch writes a key twice.
func checkTxn(r *pb.TxnRequest, opsMax int) error {
	if err := checkTxnFields(r, opsMax); err != nil {
		return err
	}
	if _, err := checkBranch(r.Success); err != nil {
		return err
	}
	_, err := checkBranch(r.Failure)
	return err
}

// checkTxnFields: a nested transaction may use what its parent leaves of opsMax.
func checkTxnFields(r *pb.TxnRequest, opsMax int) error {
	used := max(len(r.Compare), len(r.Success), len(r.Failure))
	if used > opsMax {
		return ErrTooManyOps
	}
	for _, c := range r.Compare {
		if len(c.Key) == 0 {
			return ErrKeyEmpty
		}
	}
	for _, branch := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range branch {
			if err := checkOp(op, opsMax-used); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkOp(op *pb.RequestOp, opsLeft int) error {
	switch o := op.Request.(type) {
	case *pb.RequestOp_RequestRange:
		return checkRange(o.RequestRange)
	case *pb.RequestOp_RequestPut:
		return checkPut(o.RequestPut)
	case *pb.RequestOp_RequestDeleteRange:
		return checkDelete(o.RequestDeleteRange)
	case *pb.RequestOp_RequestTxn:
		return checkTxnFields(o.RequestTxn, opsLeft)
	}
	return ErrOpUnset
}

// span is [key, end); an empty end is the one key. An end of a single zero byte, which elsewhere means that there is no
// end, is taken literally, so that nothing lies in the span: etcd accepts a transaction that deletes from a key on and
// puts one of what it deletes.
type span struct{ key, end []byte }

func (s span) holds(key string) bool {
	if len(s.end) == 0 {
		return string(s.key) == key
	}
	return key >= string(s.key) && key < string(s.end)
}

// writes is what one branch of a transaction may write.
type writes struct {
	puts    map[string]struct{}
	deletes []span
}

// checkBranch refuses a branch that puts a key twice, or puts and deletes it.
// Deletes may overlap; the two branches of one nested transaction may put the
// same key, since only one of them runs.
func checkBranch(ops []*pb.RequestOp) (writes, error) {
	all := writes{puts: map[string]struct{}{}}
	for _, op := range ops {
		if o, ok := op.Request.(*pb.RequestOp_RequestDeleteRange); ok {
			all.deletes = append(all.deletes, span{o.RequestDeleteRange.Key, o.RequestDeleteRange.RangeEnd})
		}
	}
	for _, op := range ops {
		if o, ok := op.Request.(*pb.RequestOp_RequestTxn); ok {
			if err := all.addNested(o.RequestTxn); err != nil {
				return all, err
			}
		}
	}
	for _, op := range ops {
		if o, ok := op.Request.(*pb.RequestOp_RequestPut); ok {
			key := string(o.RequestPut.Key)
			if all.touches(key) {
				return all, ErrDuplicateKey
			}
			all.puts[key] = struct{}{}
		}
	}
	return all, nil
}

func (w *writes) addNested(r *pb.TxnRequest) error {
	success, err := checkBranch(r.Success)
	if err != nil {
		return err
	}
	failure, err := checkBranch(r.Failure)
	if err != nil {
		return err
	}
	for _, branch := range []writes{success, failure} {
		for key := range branch.puts {
			if w.touches(key) {
				return ErrDuplicateKey
			}
		}
	}
	for _, branch := range []writes{success, failure} {
		for key := range branch.puts {
			w.puts[key] = struct{}{}
		}
		w.deletes = append(w.deletes, branch.deletes...)
	}
	return nil
}

func (w *writes) touches(key string) bool {
	if _, put := w.puts[key]; put {
		return true
	}
	for _, d := range w.deletes {
		if d.holds(key) {
			return true
		}
	}
	return false
}

// onlyReads holds when neither branch can write, nested ones counting as writes.
func onlyReads(r *pb.TxnRequest) bool {
	for _, branch := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range branch {
			if _, ok := op.Request.(*pb.RequestOp_RequestRange); !ok {
				return false
			}
		}
	}
	return true
}

// onlySerializable holds when every read of a reading transaction is.
func onlySerializable(r *pb.TxnRequest) bool {
	for _, branch := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range branch {
			if !op.GetRequestRange().GetSerializable() {
				return false
			}
		}
	}
	return true
}
