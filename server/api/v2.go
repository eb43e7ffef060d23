package api

import (
	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server/state/v2keys"
)

// A v3 request that wrote the keys of the v2 API could leave nodes without a
// directory above them. The checks below refuse it, at the cost of comparing
// three bytes.

func (k KV) checkV2Put(r *pb.PutRequest) error {
	if v2keys.IsKey(r.Key) && !k.limits.V2PrefixWrites {
		return ErrV2Keys
	}
	return nil
}

// checkV2Delete lets a range that only passes over the v2 keys through while
// there are none: to delete all keys is common.
func (k KV) checkV2Delete(r *pb.DeleteRangeRequest) error {
	if !v2keys.Touches(r.Key, r.RangeEnd) || k.limits.V2PrefixWrites {
		return nil
	}
	used, err := mvcc.Look(k.store, func(p mvcc.Picture) (bool, error) { return v2keys.Used(p), nil })
	if err == nil && used {
		err = ErrV2Keys
	}
	return err
}

func (k KV) checkV2Txn(r *pb.TxnRequest) error {
	for _, branch := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range branch {
			if err := k.checkV2Op(op); err != nil {
				return err
			}
		}
	}
	return nil
}

func (k KV) checkV2Op(op *pb.RequestOp) error {
	switch o := op.Request.(type) {
	case *pb.RequestOp_RequestPut:
		return k.checkV2Put(o.RequestPut)
	case *pb.RequestOp_RequestDeleteRange:
		return k.checkV2Delete(o.RequestDeleteRange)
	case *pb.RequestOp_RequestTxn:
		return k.checkV2Txn(o.RequestTxn)
	}
	return nil
}
