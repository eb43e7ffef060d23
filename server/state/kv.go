package state

import (
	"errors"

	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// put executes a Put. The lease is looked up here, as leases are not the
// store's business.
func (m *Machine) put(w *mvcc.Writer, r *pb.PutRequest, res *Result) {
	if r.Lease != 0 && !m.hasLease(mvcc.LeaseID(r.Lease)) {
		res.Err = ErrLeaseNotFound
		return
	}
	resp, err := w.Put(r)
	if err != nil {
		res.Err = err
		return
	}
	res.Response = resp
}

func (m *Machine) txn(w *mvcc.Writer, r *pb.TxnRequest, res *Result) {
	resp, err := w.Txn(r, m.leaseExists)
	if errors.Is(err, mvcc.ErrLeaseNotFound) {
		err = ErrLeaseNotFound
	}
	if err != nil {
		res.Err = err
		return
	}
	res.Response = resp
}

func (m *Machine) deleteRange(w *mvcc.Writer, r *pb.DeleteRangeRequest, res *Result) {
	resp, err := w.DeleteRange(r)
	if err != nil {
		res.Err = err
		return
	}
	res.Response = resp
}

// rangeKeys executes a Range. No member logs one, but the log's format has it.
func (m *Machine) rangeKeys(w *mvcc.Writer, r *pb.RangeRequest, res *Result) {
	resp, err := w.Range(r)
	if err != nil {
		res.Err = err
		return
	}
	res.Response = resp
}

func (m *Machine) compact(w *mvcc.Writer, r *pb.CompactionRequest, res *Result) {
	if res.Err = w.Compact(mvcc.Revision(r.Revision)); res.Err != nil {
		return
	}
	res.Response = &pb.CompactionResponse{Header: header(w)}
	res.CompactTo = mvcc.Revision(r.Revision)
}

// header is that of an answer: the revision is the one that the command has
// made, or the newest when it has made none.
func header(w *mvcc.Writer) *pb.ResponseHeader {
	return &pb.ResponseHeader{Revision: int64(w.Revision())}
}

// QuotaCost is what a command may add to the size of the store, in bytes, by
// the reckoning that the space quota uses: 0 for commands that are let through
// when space is short. The machine itself knows no quota, since the size of the
// file differs between members; whoever proposes compares.
func QuotaCost(r *pb.InternalRaftRequest) int64 {
	switch {
	case r.Put != nil:
		return PutCost(r.Put)
	case r.Txn != nil:
		return TxnCost(r.Txn)
	case r.LeaseGrant != nil:
		return LeaseCost
	case r.V2 != nil:
		return V2Cost(r.V2)
	}
	return 0
}

const (
	// LeaseCost is the quota cost of a lease, in bytes.
	LeaseCost int64 = 64
	// putOverhead is the quota cost of a put beside its key and value.
	putOverhead int64 = 256
)

// PutCost is the quota cost of a Put, in bytes.
func PutCost(r *pb.PutRequest) int64 {
	return putOverhead + int64(len(r.Key)) + int64(len(r.Value))
}

// TxnCost is the quota cost of a Txn, in bytes: that of its dearer branch,
// counting only puts.
func TxnCost(r *pb.TxnRequest) int64 {
	return max(branchCost(r.Success), branchCost(r.Failure))
}

func branchCost(ops []*pb.RequestOp) int64 {
	var sum int64
	for _, op := range ops {
		switch {
		case op.GetRequestPut() != nil:
			sum += PutCost(op.GetRequestPut())
		case op.GetRequestTxn() != nil:
			sum += TxnCost(op.GetRequestTxn())
		}
	}
	return sum
}
