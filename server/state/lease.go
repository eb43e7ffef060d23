package state

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// LeaseTTLMax is the longest TTL that a lease can have, in seconds.
const LeaseTTLMax int64 = 9_000_000_000

// Lease is a lease as agreed on. When it ends is not: deadlines belong to the
// leader's lease keeper. Which keys hang on it is the store's.
type Lease struct {
	ID mvcc.LeaseID
	// TTL is the granted time to live, in seconds.
	TTL int64
	// RemainingTTL is what a checkpoint left of it, in seconds; 0: the full TTL.
	RemainingTTL int64
}

// LeaseChangeKind says what happened to a lease.
type LeaseChangeKind uint8

// The kinds of LeaseChange.
const (
	LeaseGranted LeaseChangeKind = iota + 1
	LeaseRevoked
	LeaseCheckpointed
)

// LeaseChange tells the lease keeper of a change: the lease as it is now, or as
// it last was if it was revoked.
type LeaseChange struct {
	Kind  LeaseChangeKind
	Lease Lease
}

// leases are all leases that were granted and not revoked.
type leases map[mvcc.LeaseID]Lease

// Numbers of the fields of a lease record.
const (
	leaseFieldID           = 1
	leaseFieldTTL          = 2
	leaseFieldRemainingTTL = 3
)

// encode returns the lease's value in the bucket lease: a protobuf message
// {1: ID, 2: TTL, 3: RemainingTTL}, zeros left out.
func (l Lease) encode() []byte {
	var b []byte
	for _, f := range []struct {
		number protowire.Number
		value  int64
	}{{leaseFieldID, int64(l.ID)}, {leaseFieldTTL, l.TTL}, {leaseFieldRemainingTTL, l.RemainingTTL}} {
		if f.value != 0 {
			b = protowire.AppendTag(b, f.number, protowire.VarintType)
			b = protowire.AppendVarint(b, uint64(f.value))
		}
	}
	return b
}

// decodeLease reads a lease's value, passing over fields it does not know.
func decodeLease(b []byte) (Lease, error) {
	var l Lease
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return Lease{}, errWireFormat
		}
		size := protowire.ConsumeFieldValue(number, kind, b[n:])
		if size < 0 {
			return Lease{}, errWireFormat
		}
		if kind == protowire.VarintType {
			v, _ := protowire.ConsumeVarint(b[n:])
			switch number {
			case leaseFieldID:
				l.ID = mvcc.LeaseID(v)
			case leaseFieldTTL:
				l.TTL = int64(v)
			case leaseFieldRemainingTTL:
				l.RemainingTTL = int64(v)
			}
		}
		b = b[n+size:]
	}
	return l, nil
}

// leaseKey is the lease's key in the bucket lease.
func leaseKey(id mvcc.LeaseID) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(id))
}

func loadLeases(store *mvcc.Store) (leases, error) {
	ls := leases{}
	err := store.Load(mvcc.BucketLease, func(k, v []byte) error {
		l, err := decodeLease(v)
		if err != nil {
			return fmt.Errorf("lease %x: %w", k, err)
		}
		ls[l.ID] = l
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load leases: %w", err)
	}
	return ls, nil
}

// hasLease is for the applier only.
func (m *Machine) hasLease(id mvcc.LeaseID) bool {
	_, ok := m.leases[id]
	return ok
}

func (m *Machine) setLease(w *mvcc.Writer, l Lease) {
	w.Set(mvcc.BucketLease, leaseKey(l.ID), l.encode())
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leases[l.ID] = l
}

// grantLease creates a lease. Its id was chosen before it was proposed.
func (m *Machine) grantLease(w *mvcc.Writer, r *pb.LeaseGrantRequest, res *Result) {
	id := mvcc.LeaseID(r.ID)
	switch {
	case id == 0:
		res.Err = ErrLeaseNotFound
	case r.TTL > LeaseTTLMax:
		res.Err = ErrLeaseTTLTooLarge
	case m.hasLease(id):
		res.Err = ErrLeaseExists
	}
	if res.Err != nil {
		return
	}
	l := Lease{ID: id, TTL: max(r.TTL, m.options.MinLeaseTTL)}
	m.setLease(w, l)
	res.Leases = []LeaseChange{{Kind: LeaseGranted, Lease: l}}
	res.Response = &pb.LeaseGrantResponse{Header: header(w), ID: r.ID, TTL: l.TTL}
}

// revokeLease deletes a lease and, in one revision, the keys that hang on it.
func (m *Machine) revokeLease(w *mvcc.Writer, r *pb.LeaseRevokeRequest, res *Result) {
	id := mvcc.LeaseID(r.ID)
	l, ok := m.leases[id]
	if !ok {
		res.Err = ErrLeaseNotFound
		return
	}
	if keys := m.expireV2(w, id, res); len(keys) > 0 {
		w.DeleteKeys(keys)
	}
	m.endLease(w, l, res)
	res.Response = &pb.LeaseRevokeResponse{Header: header(w)}
}

// checkpointLeases notes what remains of leases, so that a new leader need not
// give them their full time again. Leases that are gone meanwhile are passed
// over; so is all of it while the cluster has members whose version does not
// store such figures, since memory would then say more than the store.
func (m *Machine) checkpointLeases(w *mvcc.Writer, r *pb.LeaseCheckpointRequest, res *Result) {
	res.Response = &pb.LeaseCheckpointResponse{Header: header(w)}
	if !m.cluster.versionAtLeast(checkpointVersion) {
		return
	}
	for _, c := range r.Checkpoints {
		l, ok := m.leases[mvcc.LeaseID(c.GetID())]
		if !ok {
			continue
		}
		l.RemainingTTL = c.Remaining_TTL
		m.setLease(w, l)
		res.Leases = append(res.Leases, LeaseChange{Kind: LeaseCheckpointed, Lease: l})
	}
}

// Lease returns a lease; false if there is none with this id.
func (m *Machine) Lease(id mvcc.LeaseID) (Lease, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	l, ok := m.leases[id]
	return l, ok
}

// Leases returns all leases in order of their ids.
func (m *Machine) Leases() []Lease {
	m.mu.RLock()
	ids := slices.Sorted(maps.Keys(m.leases))
	out := make([]Lease, len(ids))
	for i, id := range ids {
		out[i] = m.leases[id]
	}
	m.mu.RUnlock()
	return out
}

// LeaseCount returns how many leases there are.
func (m *Machine) LeaseCount() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.leases)
}

// CheckLease examines one pair of the bucket lease.
func CheckLease(key, value []byte) error {
	l, err := decodeLease(value)
	switch {
	case err != nil:
		return fmt.Errorf("lease %x: %w", key, err)
	case string(key) != string(leaseKey(l.ID)):
		return fmt.Errorf("lease %x: record says id %016x", key, uint64(l.ID))
	case l.TTL < 1 || l.TTL > LeaseTTLMax || l.RemainingTTL < 0 || l.RemainingTTL > l.TTL:
		return fmt.Errorf("lease %x: %d seconds left of %d", key, l.RemainingTTL, l.TTL)
	}
	return nil
}
