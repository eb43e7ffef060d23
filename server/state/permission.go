package state

import (
	"bytes"
	"slices"

	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// keyRange is the keys from (included) up to end (excluded); a nil end is
// beyond all keys.
type keyRange struct{ from, end []byte }

// rangeOf reads a key and range end as requests and permissions give them: no
// end is one key, the end \0 is everything from the key on.
func rangeOf(key, end []byte) keyRange {
	switch {
	case len(end) == 0:
		return keyRange{from: key, end: append(slices.Clip(key), 0)}
	case len(end) == 1 && end[0] == 0:
		return keyRange{from: key}
	}
	return keyRange{from: key, end: end}
}

// validRange reports whether a permission may be granted on the range: it must
// have a key and not be void.
func validRange(key, end []byte) bool {
	if len(key) == 0 {
		return false
	}
	r := rangeOf(key, end)
	return r.end == nil || bytes.Compare(r.from, r.end) < 0
}

// reaches reports whether r ends at or beyond a key.
func (r keyRange) reaches(key []byte) bool {
	return r.end == nil || bytes.Compare(r.end, key) >= 0
}

// covers reports whether all of x lies in r. A void x needs its first key.
func (r keyRange) covers(x keyRange) bool {
	if bytes.Compare(r.from, x.from) > 0 || !r.reaches(x.from) || bytes.Equal(r.end, x.from) && r.end != nil {
		return false
	}
	return r.end == nil || x.end != nil && bytes.Compare(x.end, r.end) <= 0
}

// rangeSet is what a user may read or write: ranges that neither overlap nor
// touch, ascending.
type rangeSet []keyRange

// mergeRanges joins ranges that overlap or touch.
func mergeRanges(rs []keyRange) rangeSet {
	slices.SortFunc(rs, func(a, b keyRange) int { return bytes.Compare(a.from, b.from) })
	var set rangeSet
	for _, r := range rs {
		if n := len(set); n > 0 && set[n-1].reaches(r.from) {
			last := &set[n-1]
			if last.end != nil && (r.end == nil || bytes.Compare(r.end, last.end) > 0) {
				last.end = r.end
			}
			continue
		}
		set = append(set, r)
	}
	return set
}

// allows reports whether the set has all keys of a range given as in requests.
// As the ranges of the set do not touch, one of them must have it all: the last
// that begins at or before it.
func (s rangeSet) allows(key, end []byte) bool {
	at, found := slices.BinarySearchFunc(s, key, func(r keyRange, key []byte) int { return bytes.Compare(r.from, key) })
	if !found {
		at--
	}
	if at < 0 {
		return false
	}
	if len(end) == 0 { // one key, as in every put: spare the range's allocation
		return s[at].end == nil || bytes.Compare(key, s[at].end) < 0
	}
	return s[at].covers(rangeOf(key, end))
}

// Caller is who asks, as the request's token or certificate says, and the auth
// revision at which it said so. The zero Caller gave no credentials.
type Caller struct {
	User         string
	AuthRevision uint64
}

// access is what a request needs on a range.
type access bool

const (
	toRead  access = false
	toWrite access = true
)

// permit is the permission guard of Apply, when auth is on.
func (m *Machine) permit(c Caller, field fieldNumber, r *pb.InternalRaftRequest) error {
	switch field {
	case fieldPut:
		return m.mayPut(c, r.Put)
	case fieldRange:
		return m.mayAccess(c, toRead, r.Range.Key, r.Range.RangeEnd)
	case fieldDeleteRange:
		return m.mayDelete(c, r.DeleteRange)
	case fieldTxn:
		return m.mayTxn(c, r.Txn)
	case fieldV2:
		return m.permitV2(c, r.V2)
	case fieldLeaseRevoke:
		return m.mayAccessLease(c, toWrite, mvcc.LeaseID(r.LeaseRevoke.ID))
	case fieldAuthUserGet:
		return m.mayGetUser(c, r.AuthUserGet.Name)
	case fieldAuthRoleGet:
		return m.mayGetRole(c, r.AuthRoleGet.Role)
	case fieldAuthEnable, fieldAuthDisable,
		fieldAuthUserAdd, fieldAuthUserDelete, fieldAuthUserChangePassword,
		fieldAuthUserGrantRole, fieldAuthUserRevokeRole, fieldAuthUserList,
		fieldAuthRoleAdd, fieldAuthRoleGrantPermission, fieldAuthRoleRevokePermission,
		fieldAuthRoleDelete, fieldAuthRoleList, fieldV2Auth:
		return m.mustBeRoot(c)
	}
	return nil
}

// mayAccess is the check that all others on keys rest on. What is not granted
// is denied.
func (m *Machine) mayAccess(c Caller, a access, key, end []byte) error {
	u, err := m.userOf(c)
	if err != nil {
		return err
	}
	set := u.read
	if a == toWrite {
		set = u.write
	}
	if !u.root && !set.allows(key, end) {
		return ErrPermissionDenied
	}
	return nil
}

// userOf returns the caller's user, if the caller's knowledge of it is fresh.
func (m *Machine) userOf(c Caller) (*user, error) {
	switch {
	case c.AuthRevision == 0:
		return nil, ErrUserEmpty
	case c.AuthRevision < m.auth.revision:
		return nil, ErrAuthOldRevision
	}
	u, ok := m.auth.users[c.User]
	if !ok {
		return nil, ErrPermissionDenied
	}
	return u, nil
}

// mustBeRoot asks for the role root only: changes of users carry no revision
// that would matter.
func (m *Machine) mustBeRoot(c Caller) error {
	if c.User == "" {
		return ErrUserEmpty
	}
	if u, ok := m.auth.users[c.User]; !ok || !u.root {
		return ErrPermissionDenied
	}
	return nil
}

// mayPut needs write on the key and on all keys of the lease that it is to
// hang on, and read if the previous value is asked for.
func (m *Machine) mayPut(c Caller, r *pb.PutRequest) error {
	if err := m.mayAccess(c, toWrite, r.Key, nil); err != nil {
		return err
	}
	if r.Lease != 0 {
		if err := m.mayAccessLease(c, toWrite, mvcc.LeaseID(r.Lease)); err != nil {
			return err
		}
	}
	if r.PrevKv {
		return m.mayAccess(c, toRead, r.Key, nil)
	}
	return nil
}

func (m *Machine) mayDelete(c Caller, r *pb.DeleteRangeRequest) error {
	if err := m.mayAccess(c, toWrite, r.Key, r.RangeEnd); err != nil {
		return err
	}
	if r.PrevKv {
		return m.mayAccess(c, toRead, r.Key, r.RangeEnd)
	}
	return nil
}

// mayTxn checks the compares and both branches, since which one will run is
// itself something that the caller may not be allowed to learn.
func (m *Machine) mayTxn(c Caller, r *pb.TxnRequest) error {
	for _, cmp := range r.Compare {
		if err := m.mayAccess(c, toRead, cmp.GetKey(), cmp.GetRangeEnd()); err != nil {
			return err
		}
	}
	for _, branch := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range branch {
			if err := m.mayOp(c, op); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *Machine) mayOp(c Caller, op *pb.RequestOp) error {
	switch {
	case op.GetRequestRange() != nil:
		r := op.GetRequestRange()
		return m.mayAccess(c, toRead, r.Key, r.RangeEnd)
	case op.GetRequestPut() != nil:
		return m.mayPut(c, op.GetRequestPut())
	case op.GetRequestDeleteRange() != nil:
		return m.mayDelete(c, op.GetRequestDeleteRange())
	case op.GetRequestTxn() != nil:
		return m.mayTxn(c, op.GetRequestTxn())
	}
	return nil
}

// mayAccessLease needs access to every key that hangs on the lease; root has
// it whatever the revision, so that leases end while users change: the lease
// keeper revokes in the name of root.
func (m *Machine) mayAccessLease(c Caller, a access, id mvcc.LeaseID) error {
	if m.mustBeRoot(c) == nil {
		return nil
	}
	for _, key := range m.store.LeaseKeys(id) {
		if err := m.mayAccess(c, a, key, nil); err != nil {
			return err
		}
	}
	return nil
}

// mayGetUser lets users see themselves.
func (m *Machine) mayGetUser(c Caller, name string) error {
	if c.User != "" && c.User == name {
		return nil
	}
	return m.mustBeRoot(c)
}

// mayGetRole lets users see the roles that they hold.
func (m *Machine) mayGetRole(c Caller, role string) error {
	if u, ok := m.auth.users[c.User]; ok && slices.Contains(u.record.Roles, role) {
		return nil
	}
	return m.mustBeRoot(c)
}

// check runs a permission check for a goroutine other than the applier. With
// auth off everything is allowed.
func (m *Machine) check(may func() error) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if !m.auth.enabled {
		return nil
	}
	return may()
}

// CheckRange reports whether the caller may read the range. With auth off all
// checks pass; otherwise they return ErrUserEmpty, ErrAuthOldRevision or
// ErrPermissionDenied. Writes are checked again when they are applied.
func (m *Machine) CheckRange(c Caller, r *pb.RangeRequest) error {
	return m.CheckRead(c, r.Key, r.RangeEnd)
}

// CheckRead reports whether the caller may read, or watch, a key or a range.
func (m *Machine) CheckRead(c Caller, key, end []byte) error {
	return m.check(func() error { return m.mayAccess(c, toRead, key, end) })
}

// CheckPut reports whether the caller may put.
func (m *Machine) CheckPut(c Caller, r *pb.PutRequest) error {
	return m.check(func() error { return m.mayPut(c, r) })
}

// CheckDeleteRange reports whether the caller may delete the range.
func (m *Machine) CheckDeleteRange(c Caller, r *pb.DeleteRangeRequest) error {
	return m.check(func() error { return m.mayDelete(c, r) })
}

// CheckTxn reports whether the caller may do all that the Txn could do.
func (m *Machine) CheckTxn(c Caller, r *pb.TxnRequest) error {
	return m.check(func() error { return m.mayTxn(c, r) })
}

// CheckLeaseRead reports whether the caller may see which keys hang on a lease.
func (m *Machine) CheckLeaseRead(c Caller, id mvcc.LeaseID) error {
	return m.check(func() error { return m.mayAccessLease(c, toRead, id) })
}

// CheckLeaseRevoke reports whether the caller may delete a lease's keys.
func (m *Machine) CheckLeaseRevoke(c Caller, id mvcc.LeaseID) error {
	return m.check(func() error { return m.mayAccessLease(c, toWrite, id) })
}

// CheckUser reports whether the caller is any user at all, for requests that
// concern no keys.
func (m *Machine) CheckUser(c Caller) error {
	return m.check(func() error {
		if c.User == "" {
			return ErrUserEmpty
		}
		if _, ok := m.auth.users[c.User]; !ok {
			return ErrPermissionDenied
		}
		return nil
	})
}

// CheckRoot reports whether the caller holds the role root.
func (m *Machine) CheckRoot(c Caller) error {
	return m.check(func() error { return m.mustBeRoot(c) })
}

// CheckUserGet reports whether the caller may see a user's roles.
func (m *Machine) CheckUserGet(c Caller, name string) error {
	return m.check(func() error { return m.mayGetUser(c, name) })
}

// CheckRoleGet reports whether the caller may see a role's permissions.
func (m *Machine) CheckRoleGet(c Caller, role string) error {
	return m.check(func() error { return m.mayGetRole(c, role) })
}
