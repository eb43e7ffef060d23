package api

import (
	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/v3electionpb"
	"github.com/kvorum/kvorum/proto/v3lockpb"
	"github.com/kvorum/kvorum/server/state"
)

// rule says who may call one RPC while auth is on. The zero rule, that of an
// RPC that nobody thought of, lets nobody.
type rule struct {
	// open: anybody, with or without credentials.
	open bool
	// anybody: without credentials too, but those that are given must be good.
	anybody bool
	// free, if set, names requests that ask for nothing, which anybody may make.
	free func(r any) bool
	// byService: the service asks itself, since it answers a refusal in a way of
	// its own.
	byService bool
	// inner: refusals look as if a client inside the server had met them.
	inner bool
	// reads: the answer tells of keys or users, and the request is checked again
	// when they have been read.
	reads bool
	// wrote, if set, names requests that are no reads after all: they were checked
	// when they were applied, and what is done is not denied.
	wrote func(r any) bool
	// validate, if set, finds requests that nobody could make.
	validate func(r any) error
	// check is what a known user needs beyond being one.
	check func(m *state.Machine, c state.Caller, r any) error
}

// permit reports why the caller may not make the request.
func (r rule) permit(m *state.Machine, c state.Caller, request any) error {
	if r.anybody || r.free != nil && r.free(request) {
		return nil
	}
	if r.check == nil {
		return state.ErrPermissionDenied
	}
	if err := m.CheckUser(c); err != nil {
		return err
	}
	return r.check(m, c, request)
}

// to makes a rule's check of one for the RPC's own type of request.
func to[R any](check func(*state.Machine, state.Caller, R) error) func(*state.Machine, state.Caller, any) error {
	return func(m *state.Machine, c state.Caller, r any) error {
		request, ok := r.(R)
		if !ok {
			return state.ErrPermissionDenied
		}
		return check(m, c, request)
	}
}

// of does the same for a rule's validation.
func of[R any](validate func(R) error) func(any) error {
	return func(r any) error {
		request, ok := r.(R)
		if !ok {
			return state.ErrPermissionDenied
		}
		return validate(request)
	}
}

// rules is the table of every RPC.
func rules(opsMax int) map[string]rule {
	open := rule{open: true}
	user := rule{check: func(*state.Machine, state.Caller, any) error { return nil }}
	root := rule{check: func(m *state.Machine, c state.Caller, _ any) error { return m.CheckRoot(c) }}
	rootReads := rule{check: root.check, reads: true}
	all := map[string]rule{
		pb.Cluster_MemberList_FullMethodName:    user,
		pb.Cluster_MemberAdd_FullMethodName:     {validate: of(checkMemberAdd), check: root.check},
		pb.Cluster_MemberRemove_FullMethodName:  root,
		pb.Cluster_MemberUpdate_FullMethodName:  root,
		pb.Cluster_MemberPromote_FullMethodName: root,

		pb.Maintenance_Alarm_FullMethodName:      {check: to(checkAlarm)},
		pb.Maintenance_Status_FullMethodName:     user,
		pb.Maintenance_Defragment_FullMethodName: root,
		pb.Maintenance_Hash_FullMethodName:       root,
		pb.Maintenance_HashKV_FullMethodName:     root,
		pb.Maintenance_Snapshot_FullMethodName:   root,
		pb.Maintenance_MoveLeader_FullMethodName: root,
		pb.Maintenance_Downgrade_FullMethodName:  root,

		pb.Auth_Authenticate_FullMethodName:         open,
		pb.Auth_AuthStatus_FullMethodName:           {anybody: true},
		pb.Auth_AuthEnable_FullMethodName:           root,
		pb.Auth_AuthDisable_FullMethodName:          root,
		pb.Auth_UserAdd_FullMethodName:              root,
		pb.Auth_UserDelete_FullMethodName:           root,
		pb.Auth_UserChangePassword_FullMethodName:   root,
		pb.Auth_UserGrantRole_FullMethodName:        root,
		pb.Auth_UserRevokeRole_FullMethodName:       root,
		pb.Auth_UserList_FullMethodName:             rootReads,
		pb.Auth_UserGet_FullMethodName:              {check: to(checkUserGet), reads: true},
		pb.Auth_RoleAdd_FullMethodName:              root,
		pb.Auth_RoleDelete_FullMethodName:           root,
		pb.Auth_RoleGrantPermission_FullMethodName:  root,
		pb.Auth_RoleRevokePermission_FullMethodName: root,
		pb.Auth_RoleList_FullMethodName:             rootReads,
		pb.Auth_RoleGet_FullMethodName:              {check: to(checkRoleGet), reads: true},

		grpc_health_v1.Health_Check_FullMethodName: open,
		grpc_health_v1.Health_List_FullMethodName:  open,
		grpc_health_v1.Health_Watch_FullMethodName: open,

		// They tell what is in the .proto files, which anybody has.
		reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName:      open,
		reflectionv1alpha.ServerReflection_ServerReflectionInfo_FullMethodName: open,
	}
	addKeyRules(all, user, root, opsMax)
	addRecipeRules(all)
	return all
}

// addKeyRules adds what concerns keys and leases.
func addKeyRules(all map[string]rule, user, root rule, opsMax int) {
	checkAll := func(r *pb.TxnRequest) error { return checkTxn(r, opsMax) }
	all[pb.KV_Range_FullMethodName] = rule{validate: of(checkRange), check: to((*state.Machine).CheckRange), reads: true}
	all[pb.KV_RangeStream_FullMethodName] = rule{validate: of(checkRangeStream), check: to((*state.Machine).CheckRange), reads: true}
	all[pb.KV_Put_FullMethodName] = rule{validate: of(checkPut), check: to((*state.Machine).CheckPut)}
	all[pb.KV_DeleteRange_FullMethodName] = rule{validate: of(checkDelete), check: to((*state.Machine).CheckDeleteRange)}
	wrote := func(r any) bool { txn, ok := r.(*pb.TxnRequest); return ok && !onlyReads(txn) }
	empty := func(r any) bool {
		txn, ok := r.(*pb.TxnRequest)
		return ok && len(txn.Compare)+len(txn.Success)+len(txn.Failure) == 0
	}
	all[pb.KV_Txn_FullMethodName] = rule{validate: of(checkAll), check: to((*state.Machine).CheckTxn), reads: true, wrote: wrote, free: empty}
	all[pb.KV_Compact_FullMethodName] = root

	all[pb.Watch_Watch_FullMethodName] = rule{byService: true, check: to(checkWatch)}

	all[pb.Lease_LeaseGrant_FullMethodName] = user
	all[pb.Lease_LeaseRevoke_FullMethodName] = rule{check: to(checkLeaseRevoke)}
	// Who may not end the life of the keys may not prolong it.
	all[pb.Lease_LeaseKeepAlive_FullMethodName] = rule{check: to(func(m *state.Machine, c state.Caller, r *pb.LeaseKeepAliveRequest) error {
		return m.CheckLeaseRevoke(c, mvcc.LeaseID(r.ID))
	})}
	all[pb.Lease_LeaseTimeToLive_FullMethodName] = rule{check: to(checkLeaseTimeToLive), reads: true}
	all[pb.Lease_LeaseLeases_FullMethodName] = rule{check: to(checkLeaseLeases), reads: true}
}

// addRecipeRules adds the services that are made of requests of the KV service.
// What they do is checked once more, request by request, when they do it.
func addRecipeRules(all map[string]rule) {
	all[v3lockpb.Lock_Lock_FullMethodName] = rule{inner: true, check: to(func(m *state.Machine, c state.Caller, r *v3lockpb.LockRequest) error {
		return checkJoin(m, c, place{name: r.Name, lease: r.Lease})
	})}
	all[v3lockpb.Lock_Unlock_FullMethodName] = rule{inner: true, validate: of(checkUnlock), check: to(func(m *state.Machine, c state.Caller, r *v3lockpb.UnlockRequest) error {
		return m.CheckDeleteRange(c, &pb.DeleteRangeRequest{Key: r.Key})
	})}
	all[v3electionpb.Election_Campaign_FullMethodName] = rule{inner: true, check: to(func(m *state.Machine, c state.Caller, r *v3electionpb.CampaignRequest) error {
		return checkJoin(m, c, place{name: r.Name, lease: r.Lease, value: r.Value})
	})}
	all[v3electionpb.Election_Proclaim_FullMethodName] = rule{inner: true, validate: of(checkProclaim), check: to(func(m *state.Machine, c state.Caller, r *v3electionpb.ProclaimRequest) error {
		return m.CheckTxn(c, proclaimTxn(r.Leader, r.Value))
	})}
	all[v3electionpb.Election_Resign_FullMethodName] = rule{inner: true, validate: of(checkResign), check: to(func(m *state.Machine, c state.Caller, r *v3electionpb.ResignRequest) error {
		return m.CheckTxn(c, leaveTxn(r.Leader.Key, r.Leader.Rev))
	})}
	readers := to(func(m *state.Machine, c state.Caller, r *v3electionpb.LeaderRequest) error {
		return m.CheckRange(c, firstOf(r.Name))
	})
	all[v3electionpb.Election_Leader_FullMethodName] = rule{inner: true, check: readers, reads: true}
	all[v3electionpb.Election_Observe_FullMethodName] = rule{inner: true, check: readers, reads: true}
}

func checkAlarm(m *state.Machine, c state.Caller, r *pb.AlarmRequest) error {
	if r.Action == pb.AlarmRequest_GET {
		return nil
	}
	return m.CheckRoot(c)
}

func checkUserGet(m *state.Machine, c state.Caller, r *pb.AuthUserGetRequest) error {
	return m.CheckUserGet(c, r.Name)
}

func checkRoleGet(m *state.Machine, c state.Caller, r *pb.AuthRoleGetRequest) error {
	return m.CheckRoleGet(c, r.Role)
}

// checkWatch looks at the range as the client wrote it: what the store makes of
// its end could be less than what the watcher will see.
func checkWatch(m *state.Machine, c state.Caller, r *pb.WatchCreateRequest) error {
	key := r.Key
	if len(key) == 0 {
		key = []byte{0}
	}
	return m.CheckRead(c, key, r.RangeEnd)
}

func checkLeaseRevoke(m *state.Machine, c state.Caller, r *pb.LeaseRevokeRequest) error {
	return m.CheckLeaseRevoke(c, mvcc.LeaseID(r.ID))
}

func checkLeaseTimeToLive(m *state.Machine, c state.Caller, r *pb.LeaseTimeToLiveRequest) error {
	if !r.Keys {
		return nil
	}
	return m.CheckLeaseRead(c, mvcc.LeaseID(r.ID))
}

func checkLeaseLeases(m *state.Machine, c state.Caller, _ *pb.LeaseLeasesRequest) error {
	for _, l := range m.Leases() {
		if err := m.CheckLeaseRead(c, l.ID); err != nil {
			return err
		}
	}
	return nil
}

// checkJoin is what a lock or a campaign needs: to see who is before it and to
// write its own key. The key of a lease that is yet to be granted is not known.
func checkJoin(m *state.Machine, c state.Caller, p place) error {
	if p.lease == 0 {
		return m.CheckRange(c, firstOf(p.name))
	}
	p.key = p.ownKey()
	return m.CheckTxn(c, p.joinTxn())
}
