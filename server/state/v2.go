package state

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server/state/v2keys"
)

// changeV2 executes a command on the v2 keys. The response is a
// *v2keys.Answer, a refusal a *v2keys.Error.
func (m *Machine) changeV2(w *mvcc.Writer, r *pb.V2Request, res *Result) {
	if res.Err = m.checkV2(r); res.Err != nil {
		return
	}
	out, err := v2keys.Apply(w, r)
	if err != nil {
		res.Err = err
		return
	}
	m.dropV2Leases(w, out.Dropped, res)
	if r.Lease != 0 && !isV2Removal(r) {
		l := Lease{ID: mvcc.LeaseID(r.Lease), TTL: r.TtlSeconds}
		m.setLease(w, l)
		res.Leases = append(res.Leases, LeaseChange{Kind: LeaseGranted, Lease: l})
	}
	res.Response = &out.Answer
}

func isV2Removal(r *pb.V2Request) bool {
	return r.Method == pb.V2Request_DELETE || r.Method == pb.V2Request_COMPARE_AND_DELETE
}

// checkV2 refuses what no member proposes.
func (m *Machine) checkV2(r *pb.V2Request) error {
	switch {
	case !isV2Path(r.Path):
		return fmt.Errorf("%w: v2 path %q", ErrMalformed, r.Path)
	case r.TtlSeconds < 0 || r.TtlSeconds > LeaseTTLMax:
		return fmt.Errorf("%w: v2 TTL of %d seconds", ErrMalformed, r.TtlSeconds)
	case r.Lease != 0 && m.hasLease(mvcc.LeaseID(r.Lease)):
		return ErrLeaseExists
	}
	return nil
}

func isV2Path(path string) bool {
	return path == v2keys.Root ||
		strings.HasPrefix(path, "/") && !strings.HasSuffix(path, "/") && !strings.Contains(path, "//")
}

// dropV2Leases ends leases whose node is gone, unless other keys hang on them:
// those go when the time of the lease is up.
func (m *Machine) dropV2Leases(w *mvcc.Writer, ids []mvcc.LeaseID, res *Result) {
	for _, id := range ids {
		l, ok := m.leases[id]
		if !ok || len(m.store.LeaseKeys(id)) > 0 {
			continue
		}
		m.endLease(w, l, res)
	}
}

// endLease forgets a lease that no key hangs on any more.
func (m *Machine) endLease(w *mvcc.Writer, l Lease, res *Result) {
	w.Delete(mvcc.BucketLease, leaseKey(l.ID))
	m.mu.Lock()
	delete(m.leases, l.ID)
	m.mu.Unlock()
	res.Leases = append(res.Leases, LeaseChange{Kind: LeaseRevoked, Lease: l})
}

// expireV2 removes the v2 nodes among the keys of a lease that ends, and
// returns the other keys. A node that cannot be read goes as any other key.
func (m *Machine) expireV2(w *mvcc.Writer, id mvcc.LeaseID, res *Result) (others [][]byte) {
	for _, key := range m.store.LeaseKeys(id) {
		if !v2keys.IsKey(key) {
			others = append(others, key)
			continue
		}
		out, err := v2keys.Expire(w, key)
		if err != nil {
			others = append(others, key)
			continue
		}
		if out.Node != nil {
			m.v2Expired.Add(1)
		}
		below := slices.DeleteFunc(out.Dropped, func(dropped mvcc.LeaseID) bool { return dropped == id })
		m.dropV2Leases(w, below, res)
	}
	return others
}

// V2Cost is the quota cost of a v2 command, in bytes.
func V2Cost(r *pb.V2Request) int64 {
	if isV2Removal(r) {
		return 0
	}
	return putOverhead + int64(len(r.Path)) + int64(len(r.Value))
}

// V2Expired counts the v2 nodes that this member has seen expire since it
// started.
func (m *Machine) V2Expired() uint64 { return m.v2Expired.Load() }
