package state

import (
	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// oneIn chooses one entry in n by its place in the log, so that a planted bug is
// the same on every member.
func oneIn(n uint64, at mvcc.Applied) bool {
	const spread = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio
	return (at.Index*spread)>>32%n == 0
}

// applyAgain is the planted bug ApplyTwice: now and then a put or a transaction
// is done a second time, as an entry of its own would be.
func (m *Machine) applyAgain(w *mvcc.Writer, at mvcc.Applied, field fieldNumber, r *pb.InternalRaftRequest) {
	if (field != fieldPut && field != fieldTxn) || !oneIn(50, at) {
		return
	}
	w.Close()
	w = m.store.Write(at) // whoever called closes it: a store has one Writer
	m.execute(w, at, field, r, &Result{})
}
