package state

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/kvorum/kvorum/internal/plant"
	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// Options are the two settings that decide results. They must be the same on
// every member of a cluster, as the log does not carry them.
type Options struct {
	// MinLeaseTTL, in seconds, is what a shorter TTL is raised to. Proposers
	// raise it in the request already; this covers those that do not.
	MinLeaseTTL int64
	// MaxLearners is how many learners the cluster may have; 0 means 1.
	MaxLearners int
}

// NoLearners is a MaxLearners that allows none.
const NoLearners = -1

// Machine applies committed commands to a store. See the package comment for
// which goroutine may call what.
type Machine struct {
	store   *mvcc.Store
	options Options
	decoder decoder      // owner: applier
	applied mvcc.Applied // owner: applier

	// leaseExists is m.hasLease, made once so that a Txn allocates no closure.
	leaseExists func(mvcc.LeaseID) bool

	// mu guards the fields below: the applier writes them under the lock and
	// reads them without; everybody else reads under the lock. It is the only
	// lock of the package and is never held while a command is executed. The
	// checks that ask the store for the keys of a lease take it before the
	// store's own; the store calls leaseExists under that, which takes none.
	mu      sync.RWMutex
	leases  leases
	alarms  alarms
	cluster cluster
	auth    auth

	// authOn is auth.enabled for those who only need to know that it is off, as
	// every request does: they must not meet on a lock.
	authOn atomic.Bool

	// v2Expired counts for statistics; it is no part of the replicated state.
	v2Expired atomic.Uint64
}

// Result is what applying one entry came to. Equal commands on equal states
// give equal Results.
type Result struct {
	// RequestID is the id that the proposer waits for: that of the command's
	// header, or of the membership change. 0: nobody waits.
	RequestID uint64
	// Op names the kind of command, as in the metric label; "unknown" for kinds
	// that have none.
	Op string
	// Response is the RPC's response message; nil when Err is set and for
	// commands that answer nothing. Its header's Revision is set for Put,
	// DeleteRange, Range and Txn; where it is 0 the caller fills in the store's
	// revision when it answers.
	Response any
	// Err says why the command was refused. Nothing but the applied index has
	// changed then.
	Err error
	// Skipped: the store held this entry already; nothing was done.
	Skipped bool

	// CompactTo is the revision of an accepted compaction, for whoever waits for
	// its physical end; 0 otherwise.
	CompactTo mvcc.Revision
	// Leases are the changes that the leader's lease keeper follows.
	Leases []LeaseChange
	// Token is what a login or a change of users does to simple tokens.
	Token *TokenChange
	// Member is the change of one member, for the links to peers.
	Member *MemberChange
	// ClusterVersion is the version just set, "" otherwise.
	ClusterVersion string
	// Downgrade is the downgrade state just set, nil otherwise.
	Downgrade *Downgrade
}

// New returns the machine whose state is what the store holds.
func New(store *mvcc.Store, o Options) (*Machine, error) {
	if o.MaxLearners == 0 {
		o.MaxLearners = 1
	}
	m := &Machine{store: store, options: o}
	m.leaseExists = m.hasLease
	if err := m.Reload(); err != nil {
		return nil, err
	}
	return m, nil
}

// Reload reads all state again from the store, after a snapshot was installed
// in it. If it fails the machine is as before, which no longer fits the store:
// the member must stop. Only the applier calls it.
func (m *Machine) Reload() error {
	leases, err := loadLeases(m.store)
	if err != nil {
		return err
	}
	alarms, err := loadAlarms(m.store)
	if err != nil {
		return err
	}
	cluster, err := loadCluster(m.store)
	if err != nil {
		return err
	}
	auth, err := loadAuth(m.store)
	if err != nil {
		return err
	}
	m.applied = m.store.Applied()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leases, m.alarms, m.cluster, m.auth = leases, alarms, cluster, auth
	m.authOn.Store(auth.enabled)
	return nil
}

// Apply executes one normal entry. Only the applier calls it, in log order.
//
// The machine may keep parts of data in what it hands to the store, so data
// must never change afterwards; the bytes of a log entry do not.
func (m *Machine) Apply(at mvcc.Applied, data []byte) Result {
	if at.Index <= m.applied.Index {
		return Result{Skipped: true}
	}
	m.applied = at
	w := m.store.Write(at)
	defer w.Close()

	res := Result{Op: opUnknown}
	if len(data) == 0 {
		return res
	}
	field, r, err := m.decoder.decode(data)
	if err != nil {
		res.Err = err
		return res
	}
	res.Op = opOf(field)
	caller := Caller{}
	if h := r.Header; h != nil {
		res.RequestID = h.ID
		caller = Caller{User: h.Username, AuthRevision: h.AuthRevision}
	} else {
		res.RequestID = r.ID
	}
	if r.Header == nil && r.ID == 0 {
		res.Err = fmt.Errorf("%w: neither id nor header", ErrMalformed)
		return res
	}
	if res.Err = m.guard(caller, field, r); res.Err == nil {
		m.execute(w, at, field, r, &res)
	}
	if plant.Here(plant.ApplyTwice) && res.Err == nil {
		m.applyAgain(w, at, field, r)
	}
	if res.Err != nil {
		res.Response = nil
	}
	return res
}

// guard refuses a command for an active alarm or for want of permission.
func (m *Machine) guard(c Caller, field fieldNumber, r *pb.InternalRaftRequest) error {
	if len(m.alarms) > 0 {
		if err := m.alarms.refuse(r); err != nil {
			return err
		}
	}
	if !m.auth.enabled {
		return nil
	}
	return m.permit(c, field, r)
}

// execute runs an admitted command: the one switch over all kinds.
func (m *Machine) execute(w *mvcc.Writer, at mvcc.Applied, field fieldNumber, r *pb.InternalRaftRequest, res *Result) {
	switch field {
	case fieldPut:
		if plant.Here(plant.DropAcknowledged) && oneIn(100, at) {
			res.Response = &pb.PutResponse{Header: header(w)}
			return
		}
		m.put(w, r.Put, res)
	case fieldTxn:
		m.txn(w, r.Txn, res)
	case fieldDeleteRange:
		m.deleteRange(w, r.DeleteRange, res)
	case fieldRange:
		m.rangeKeys(w, r.Range, res)
	case fieldCompaction:
		m.compact(w, r.Compaction, res)
	case fieldLeaseGrant:
		m.grantLease(w, r.LeaseGrant, res)
	case fieldLeaseRevoke:
		m.revokeLease(w, r.LeaseRevoke, res)
	case fieldLeaseCheckpoint:
		m.checkpointLeases(w, r.LeaseCheckpoint, res)
	case fieldV2:
		m.changeV2(w, r.V2, res)
	case fieldAlarm:
		m.changeAlarm(w, r.Alarm, res)
	case fieldClusterVersionSet:
		m.setClusterVersion(w, r.ClusterVersionSet.Ver, res)
	case fieldClusterMemberAttrSet:
		m.setMemberAttributes(w, r.ClusterMemberAttrSet, res)
	case fieldDowngradeInfoSet:
		m.setDowngrade(w, r.DowngradeInfoSet, res)
	case fieldDowngradeVersionTest:
		// Written by tests of etcd itself; means nothing.
	default:
		m.executeAuth(w, at, field, r, res)
	}
}

// executeAuth is the part of execute's switch that concerns users and roles.
func (m *Machine) executeAuth(w *mvcc.Writer, at mvcc.Applied, field fieldNumber, r *pb.InternalRaftRequest, res *Result) {
	switch field {
	case fieldAuthEnable:
		m.enableAuth(w, res)
	case fieldAuthDisable:
		m.disableAuth(w, res)
	case fieldAuthenticate:
		m.authenticate(w, at, r.Authenticate, res)
	case fieldAuthStatus:
		res.Response = m.auth.status()
	case fieldAuthUserAdd:
		m.addUser(w, r.AuthUserAdd, res)
	case fieldAuthUserDelete:
		m.deleteUser(w, r.AuthUserDelete.Name, res)
	case fieldAuthUserGet:
		res.Response, res.Err = m.auth.userGet(r.AuthUserGet.Name)
	case fieldAuthUserChangePassword:
		m.changePassword(w, r.AuthUserChangePassword, res)
	case fieldAuthUserGrantRole:
		m.grantRole(w, r.AuthUserGrantRole, res)
	case fieldAuthUserRevokeRole:
		m.revokeRole(w, r.AuthUserRevokeRole, res)
	case fieldAuthUserList:
		res.Response = m.auth.userList()
	case fieldAuthRoleList:
		res.Response = m.auth.roleList()
	case fieldAuthRoleAdd:
		m.addRole(w, r.AuthRoleAdd.Name, res)
	case fieldAuthRoleDelete:
		m.deleteRole(w, r.AuthRoleDelete.Role, res)
	case fieldAuthRoleGet:
		res.Response, res.Err = m.auth.roleGet(r.AuthRoleGet.Role)
	case fieldAuthRoleGrantPermission:
		m.grantPermission(w, r.AuthRoleGrantPermission, res)
	case fieldAuthRoleRevokePermission:
		m.revokePermission(w, r.AuthRoleRevokePermission, res)
	case fieldV2Auth:
		m.changeV2Auth(w, r.V2Auth, res)
	}
}
