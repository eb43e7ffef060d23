package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/kvorum/kvorum/proto/authpb"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/v3electionpb"
	"github.com/kvorum/kvorum/proto/v3lockpb"
)

// The callers of the matrix. Reader, writer and owner hold READ, WRITE and
// READWRITE on the keys under k/; nobody is a user without a role.
var (
	everyone = []string{"none", "bad", "nobody", "reader", "writer", "owner", "root"}
	users    = []string{"nobody", "reader", "writer", "owner", "root"}
	readers  = []string{"reader", "owner", "root"}
	writers  = []string{"writer", "owner", "root"}
	owners   = []string{"owner", "root"}
	root     = []string{"root"}
)

// cell is one row of the matrix: a request, and who may make it.
type cell struct {
	method  string
	what    string // what is special about the request
	request proto.Message
	allowed []string
	answer  string // the error that those who may are told; "" is none
}

// inner are the services whose refusals have the code Unknown, as etcd's have.
func (c cell) inner() bool {
	return strings.HasPrefix(c.method, "/v3lockpb.") || strings.HasPrefix(c.method, "/v3electionpb.")
}

// world is what the matrix is asked about: two leases, one with a key under k/,
// one with a key that only root may touch, and the leader of an election.
type world struct {
	*testMember
	mine, foreign, free int64
	leader              *v3electionpb.LeaderKey
}

const matrixRoot = "root's password"

// If this fails, somebody can do what they were not allowed to, or cannot do
// what they were.
func TestPermissionMatrix(t *testing.T) {
	m := startMember(t, nil)
	w := makeWorld(t, m)
	cells := w.cells()
	for _, method := range methodsOf(m) {
		if !slices.ContainsFunc(cells, func(c cell) bool { return c.method == method }) {
			t.Errorf("%s is in no row: say in cells who may call it, and give it a rule", method)
		}
	}
	asserted := 0
	for _, c := range cells {
		for _, who := range everyone {
			err := w.call(c, w.login(who))
			asserted++
			if want, got := c.want(who), told(err); got != want {
				t.Errorf("%s (%s) by %s: %s, want %s", c.method, c.what, who, got, want)
			}
		}
	}
	t.Logf("%d cells", asserted)
}

// methodsOf is every RPC that the member serves, from the descriptors.
func methodsOf(m *testMember) []string {
	var all []string
	for service, info := range m.newGRPC().GetServiceInfo() {
		for _, method := range info.Methods {
			all = append(all, "/"+service+"/"+method.Name)
		}
	}
	slices.Sort(all)
	return all
}

func makeWorld(t *testing.T, m *testMember) *world {
	t.Helper()
	w := &world{testMember: m}
	kv, lease := pb.NewKVClient(m.conn), pb.NewLeaseClient(m.conn)
	for _, id := range []*int64{&w.mine, &w.foreign, &w.free} {
		*id = must[*pb.LeaseGrantResponse](t)(lease.LeaseGrant(m.ctx, &pb.LeaseGrantRequest{TTL: 600})).ID
	}
	must[*pb.PutResponse](t)(kv.Put(m.ctx, &pb.PutRequest{Key: []byte("k/leased"), Lease: w.mine}))
	must[*pb.PutResponse](t)(kv.Put(m.ctx, &pb.PutRequest{Key: []byte("z/leased"), Lease: w.foreign}))
	w.leader = must[*v3electionpb.CampaignResponse](t)(v3electionpb.NewElectionClient(m.conn).Campaign(m.ctx,
		&v3electionpb.CampaignRequest{Name: []byte("k/vote"), Lease: w.free})).Leader

	auth := pb.NewAuthClient(m.conn)
	for _, name := range users {
		password := name
		if name == "root" {
			password = matrixRoot
		}
		must[*pb.AuthUserAddResponse](t)(auth.UserAdd(m.ctx, &pb.AuthUserAddRequest{Name: name, Password: password}))
		if name == "nobody" {
			continue
		}
		must[*pb.AuthRoleAddResponse](t)(auth.RoleAdd(m.ctx, &pb.AuthRoleAddRequest{Name: name}))
		must[*pb.AuthUserGrantRoleResponse](t)(auth.UserGrantRole(m.ctx, &pb.AuthUserGrantRoleRequest{User: name, Role: name}))
	}
	for name, kind := range map[string]authpb.Permission_Type{"reader": authpb.Permission_READ, "writer": authpb.Permission_WRITE, "owner": authpb.Permission_READWRITE} {
		must[*pb.AuthRoleGrantPermissionResponse](t)(auth.RoleGrantPermission(m.ctx, &pb.AuthRoleGrantPermissionRequest{
			Name: name, Perm: &authpb.Permission{PermType: kind, Key: []byte("k/"), RangeEnd: []byte("k0")},
		}))
	}
	must[*pb.AuthEnableResponse](t)(auth.AuthEnable(m.ctx, &pb.AuthEnableRequest{}))
	return w
}

// login is the context of a caller. The last row switches auth off and on, so
// every cell logs in anew.
func (w *world) login(who string) context.Context {
	switch who {
	case "none":
		return w.ctx
	case "bad":
		return withToken(w.ctx, "ABCDEFGHIJKLMNOP.1")
	case "root":
		return w.as(who, matrixRoot)
	}
	return w.as(who, who)
}

func (c cell) want(who string) string {
	var text string
	var code codes.Code
	switch {
	case slices.Contains(c.allowed, who) && c.answer == "":
		return "ok"
	case slices.Contains(c.allowed, who):
		return c.answer
	case who == "none":
		text, code = "etcdserver: user name is empty", codes.InvalidArgument
	case who == "bad":
		text, code = "etcdserver: invalid auth token", codes.Unauthenticated
	default:
		text, code = "etcdserver: permission denied", codes.PermissionDenied
	}
	if c.inner() {
		code = codes.Unknown
	}
	return fmt.Sprintf("%s %s", code, text)
}

// told is what a caller sees.
func told(err error) string {
	if err == nil {
		return "ok"
	}
	s := status.Convert(err)
	return fmt.Sprintf("%s %s", s.Code(), s.Message())
}

// call makes the request as the descriptor of its method says, and reads the
// first answer.
func (w *world) call(c cell, ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, testWait)
	defer cancel()
	service, name, _ := strings.Cut(c.method[1:], "/")
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return err
	}
	method := found.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(name))
	kind, err := protoregistry.GlobalTypes.FindMessageByName(method.Output().FullName())
	if err != nil {
		return err
	}
	answer := kind.New().Interface()
	if !method.IsStreamingServer() {
		return w.conn.Invoke(ctx, c.method, c.request, answer)
	}
	stream, err := w.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: method.IsStreamingClient()}, c.method)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(c.request); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if err := stream.RecvMsg(answer); err != nil {
		return err
	}
	return watchRefusal(answer)
}

// watchRefusal makes an error of the reason that a watcher was not made for,
// which is the text of one.
func watchRefusal(answer proto.Message) error {
	r, ok := answer.(*pb.WatchResponse)
	if !ok || !r.Canceled {
		return nil
	}
	for _, code := range []codes.Code{codes.InvalidArgument, codes.Unauthenticated, codes.PermissionDenied} {
		err := status.Error(code, strings.TrimPrefix(r.CancelReason, fmt.Sprintf("rpc error: code = %s desc = ", code)))
		if err.Error() == r.CancelReason && r.WatchId == -1 && r.Created {
			return err
		}
	}
	return fmt.Errorf("canceled: %v", r)
}

func (w *world) cells() []cell {
	return slices.Concat(w.kvCells(), w.txnCells(), watchCells(), w.leaseCells(), w.recipeCells(), w.clusterCells(), maintenanceCells(), w.healthCells(), w.authCells())
}

func (w *world) kvCells() []cell {
	key, end := []byte("k/a"), []byte("k/z")
	return []cell{
		{pb.KV_Range_FullMethodName, "key", &pb.RangeRequest{Key: key}, readers, ""},
		{pb.KV_Range_FullMethodName, "serializable", &pb.RangeRequest{Key: key, Serializable: true}, readers, ""},
		{pb.KV_Range_FullMethodName, "range", &pb.RangeRequest{Key: key, RangeEnd: end}, readers, ""},
		{pb.KV_Range_FullMethodName, "range beyond", &pb.RangeRequest{Key: key, RangeEnd: []byte("k1")}, root, ""},
		{pb.KV_Range_FullMethodName, "from key", &pb.RangeRequest{Key: key, RangeEnd: []byte{0}}, root, ""},
		{pb.KV_Range_FullMethodName, "count only", &pb.RangeRequest{Key: []byte("z/"), RangeEnd: []byte("z0"), CountOnly: true}, root, ""},
		{pb.KV_RangeStream_FullMethodName, "range", &pb.RangeRequest{Key: key, RangeEnd: end}, readers, ""},
		{pb.KV_RangeStream_FullMethodName, "everything", &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, root, ""},
		{pb.KV_Put_FullMethodName, "key", &pb.PutRequest{Key: key}, writers, ""},
		{pb.KV_Put_FullMethodName, "key beyond", &pb.PutRequest{Key: []byte("k0")}, root, ""},
		{pb.KV_Put_FullMethodName, "prev_kv", &pb.PutRequest{Key: key, PrevKv: true}, owners, ""},
		{pb.KV_Put_FullMethodName, "lease with own keys", &pb.PutRequest{Key: key, Lease: w.mine}, writers, ""},
		{pb.KV_Put_FullMethodName, "lease with a foreign key", &pb.PutRequest{Key: []byte("k/x"), Lease: w.foreign}, root, ""},
		{pb.KV_DeleteRange_FullMethodName, "range", &pb.DeleteRangeRequest{Key: key, RangeEnd: []byte("k/b")}, writers, ""},
		{pb.KV_DeleteRange_FullMethodName, "prev_kv", &pb.DeleteRangeRequest{Key: key, PrevKv: true}, owners, ""},
		{pb.KV_DeleteRange_FullMethodName, "range beyond", &pb.DeleteRangeRequest{Key: []byte("k/y"), RangeEnd: []byte("l")}, root, ""},
		{pb.KV_Compact_FullMethodName, "", &pb.CompactionRequest{Revision: 1}, root, ""},
	}
}

func get(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key)}}}
}

func put(r *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
}

func remove(r *pb.DeleteRangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
}

func nested(r *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}}
}

func ops(all ...*pb.RequestOp) []*pb.RequestOp { return all }

func (w *world) txnCells() []cell {
	txn := func(what string, allowed []string, r *pb.TxnRequest) cell {
		return cell{pb.KV_Txn_FullMethodName, what, r, allowed, ""}
	}
	own := put(&pb.PutRequest{Key: []byte("k/t")})
	foreign := put(&pb.PutRequest{Key: []byte("z/t")})
	compare := func(key string) []*pb.Compare {
		return []*pb.Compare{{Key: []byte(key), Target: pb.Compare_VERSION, Result: pb.Compare_GREATER, TargetUnion: &pb.Compare_Version{Version: 1 << 40}}}
	}
	whole := []*pb.Compare{{Key: []byte("k/"), RangeEnd: []byte{0}, Target: pb.Compare_VERSION}}
	return []cell{
		txn("empty", append([]string{"none"}, users...), &pb.TxnRequest{}), // it asks for nothing
		txn("put", writers, &pb.TxnRequest{Success: ops(own)}),
		txn("get", readers, &pb.TxnRequest{Success: ops(get("k/a"))}),
		txn("get and put", owners, &pb.TxnRequest{Success: ops(get("k/a"), own)}),
		txn("foreign get", root, &pb.TxnRequest{Success: ops(get("z/a"))}),
		txn("compare", owners, &pb.TxnRequest{Compare: compare("k/a"), Failure: ops(own)}),
		txn("compare of a foreign key", root, &pb.TxnRequest{Compare: compare("z/a"), Failure: ops(own)}),
		txn("compare of too large a range", root, &pb.TxnRequest{Compare: whole, Failure: ops(own)}),
		txn("branch that does not run", root, &pb.TxnRequest{Compare: compare("k/a"), Success: ops(foreign), Failure: ops(own)}),
		txn("put with prev_kv", owners, &pb.TxnRequest{Success: ops(put(&pb.PutRequest{Key: []byte("k/t"), PrevKv: true}))}),
		txn("delete with prev_kv", owners, &pb.TxnRequest{Success: ops(remove(&pb.DeleteRangeRequest{Key: []byte("k/t"), PrevKv: true}))}),
		txn("foreign delete", root, &pb.TxnRequest{Success: ops(remove(&pb.DeleteRangeRequest{Key: []byte("z/t")}))}),
		txn("lease with a foreign key", root, &pb.TxnRequest{Success: ops(put(&pb.PutRequest{Key: []byte("k/x"), Lease: w.foreign}))}),
		txn("nested put", writers, &pb.TxnRequest{Success: ops(nested(&pb.TxnRequest{Failure: ops(own)}))}),
		txn("nested foreign put", root, &pb.TxnRequest{Success: ops(nested(&pb.TxnRequest{Failure: ops(foreign)}))}),
		txn("twice nested foreign compare", root, &pb.TxnRequest{Failure: ops(nested(&pb.TxnRequest{Success: ops(nested(&pb.TxnRequest{Compare: compare("z/a")}))}))}),
	}
}

func watchCells() []cell {
	watch := func(what string, allowed []string, key, end string) cell {
		create := &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end)}
		return cell{pb.Watch_Watch_FullMethodName, what, &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}, allowed, ""}
	}
	return []cell{
		watch("key", readers, "k/a", ""),
		watch("range", readers, "k/", "k0"),
		watch("range beyond", root, "k/", "k00"),
		watch("from key", root, "k/", "\x00"),
		watch("everything", root, "", "\x00"),
		watch("no key", root, "", ""),
	}
}

func (w *world) leaseCells() []cell {
	const gone = "NotFound etcdserver: requested lease not found"
	return []cell{
		{pb.Lease_LeaseGrant_FullMethodName, "", &pb.LeaseGrantRequest{TTL: 60}, users, ""},
		{pb.Lease_LeaseKeepAlive_FullMethodName, "", &pb.LeaseKeepAliveRequest{ID: 1}, users, ""},
		{pb.Lease_LeaseKeepAlive_FullMethodName, "own keys", &pb.LeaseKeepAliveRequest{ID: w.mine}, writers, ""},
		{pb.Lease_LeaseKeepAlive_FullMethodName, "foreign keys", &pb.LeaseKeepAliveRequest{ID: w.foreign}, root, ""},
		{pb.Lease_LeaseTimeToLive_FullMethodName, "time", &pb.LeaseTimeToLiveRequest{ID: w.foreign}, users, ""},
		{pb.Lease_LeaseTimeToLive_FullMethodName, "own keys", &pb.LeaseTimeToLiveRequest{ID: w.mine, Keys: true}, readers, ""},
		{pb.Lease_LeaseTimeToLive_FullMethodName, "foreign keys", &pb.LeaseTimeToLiveRequest{ID: w.foreign, Keys: true}, root, ""},
		{pb.Lease_LeaseLeases_FullMethodName, "", &pb.LeaseLeasesRequest{}, root, ""},
		{pb.Lease_LeaseRevoke_FullMethodName, "unknown", &pb.LeaseRevokeRequest{ID: 1}, users, gone},
		{pb.Lease_LeaseRevoke_FullMethodName, "foreign keys", &pb.LeaseRevokeRequest{ID: w.foreign}, root, ""},
	}
}

func (w *world) recipeCells() []cell {
	foreign := &v3electionpb.LeaderKey{Name: []byte("z/vote"), Key: []byte("z/vote/1"), Rev: 1}
	return []cell{
		{v3lockpb.Lock_Lock_FullMethodName, "", &v3lockpb.LockRequest{Name: []byte("k/lock"), Lease: w.free}, owners, ""},
		{v3lockpb.Lock_Lock_FullMethodName, "foreign", &v3lockpb.LockRequest{Name: []byte("z/lock"), Lease: w.free}, root, ""},
		{v3lockpb.Lock_Lock_FullMethodName, "no lease", &v3lockpb.LockRequest{Name: []byte("z/lock2")}, root, ""},
		{v3lockpb.Lock_Unlock_FullMethodName, "", &v3lockpb.UnlockRequest{Key: []byte("k/lock/1")}, writers, ""},
		{v3lockpb.Lock_Unlock_FullMethodName, "foreign", &v3lockpb.UnlockRequest{Key: []byte("z/lock/1")}, root, ""},
		{v3electionpb.Election_Campaign_FullMethodName, "foreign", &v3electionpb.CampaignRequest{Name: []byte("z/vote"), Lease: w.mine}, root, ""},
		{v3electionpb.Election_Leader_FullMethodName, "", &v3electionpb.LeaderRequest{Name: []byte("k/vote")}, readers, ""},
		{v3electionpb.Election_Leader_FullMethodName, "foreign", &v3electionpb.LeaderRequest{Name: []byte("z/vote")}, root, ""},
		{v3electionpb.Election_Observe_FullMethodName, "", &v3electionpb.LeaderRequest{Name: []byte("k/vote")}, readers, ""},
		{v3electionpb.Election_Observe_FullMethodName, "foreign", &v3electionpb.LeaderRequest{Name: []byte("z/vote")}, root, ""},
		{v3electionpb.Election_Proclaim_FullMethodName, "foreign", &v3electionpb.ProclaimRequest{Leader: foreign}, root, "Unknown election: not leader"},
		{v3electionpb.Election_Resign_FullMethodName, "foreign", &v3electionpb.ResignRequest{Leader: foreign}, root, ""},
		{v3electionpb.Election_Resign_FullMethodName, "", &v3electionpb.ResignRequest{Leader: w.leader}, owners, ""},
	}
}

func (w *world) clusterCells() []cell {
	const unknown = "NotFound etcdserver: member not found"
	return []cell{
		{pb.Cluster_MemberList_FullMethodName, "", &pb.MemberListRequest{}, users, ""},
		{pb.Cluster_MemberAdd_FullMethodName, "no URL", &pb.MemberAddRequest{}, everyone, "InvalidArgument etcdserver: given member URLs are invalid"},
		{pb.Cluster_MemberAdd_FullMethodName, "own URL", &pb.MemberAddRequest{PeerURLs: w.machine.Members()[0].PeerURLs, IsLearner: true}, root, "FailedPrecondition etcdserver: Peer URLs already exists"},
		{pb.Cluster_MemberRemove_FullMethodName, "", &pb.MemberRemoveRequest{ID: 1}, root, unknown},
		{pb.Cluster_MemberUpdate_FullMethodName, "", &pb.MemberUpdateRequest{ID: 1}, root, unknown},
		{pb.Cluster_MemberPromote_FullMethodName, "", &pb.MemberPromoteRequest{ID: 1}, root, unknown},
	}
}

func maintenanceCells() []cell {
	return []cell{
		{pb.Maintenance_Status_FullMethodName, "", &pb.StatusRequest{}, users, ""},
		{pb.Maintenance_Alarm_FullMethodName, "list", &pb.AlarmRequest{}, users, ""},
		{pb.Maintenance_Alarm_FullMethodName, "raise", &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE}, root, ""},
		{pb.Maintenance_Alarm_FullMethodName, "clear", &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE}, root, ""},
		{pb.Maintenance_Defragment_FullMethodName, "", &pb.DefragmentRequest{}, root, ""},
		{pb.Maintenance_Hash_FullMethodName, "", &pb.HashRequest{}, root, ""},
		{pb.Maintenance_HashKV_FullMethodName, "", &pb.HashKVRequest{}, root, ""},
		{pb.Maintenance_Snapshot_FullMethodName, "", &pb.SnapshotRequest{}, root, ""},
		{pb.Maintenance_MoveLeader_FullMethodName, "", &pb.MoveLeaderRequest{TargetID: 1}, root, "FailedPrecondition etcdserver: bad leader transferee"},
		{pb.Maintenance_Downgrade_FullMethodName, "", &pb.DowngradeRequest{Action: pb.DowngradeRequest_CANCEL}, root, ""},
	}
}

func (w *world) healthCells() []cell {
	return []cell{
		{grpc_health_v1.Health_Check_FullMethodName, "", &grpc_health_v1.HealthCheckRequest{}, everyone, ""},
		{grpc_health_v1.Health_List_FullMethodName, "", &grpc_health_v1.HealthListRequest{}, everyone, ""},
		{grpc_health_v1.Health_Watch_FullMethodName, "", &grpc_health_v1.HealthCheckRequest{}, everyone, ""},
		{reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName, "", &reflectionv1.ServerReflectionRequest{
			MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{},
		}, everyone, ""},
		{reflectionv1alpha.ServerReflection_ServerReflectionInfo_FullMethodName, "", &reflectionv1alpha.ServerReflectionRequest{ //nolint:staticcheck // what old tools speak
			MessageRequest: &reflectionv1alpha.ServerReflectionRequest_ListServices{},
		}, everyone, ""},
	}
}

func (w *world) authCells() []cell {
	const (
		noUser = "FailedPrecondition etcdserver: user name not found"
		noRole = "FailedPrecondition etcdserver: role name not found"
	)
	permission := &authpb.Permission{Key: []byte("x")}
	return []cell{
		{pb.Auth_Authenticate_FullMethodName, "", &pb.AuthenticateRequest{Name: "reader", Password: "reader"}, everyone, ""},
		{pb.Auth_AuthStatus_FullMethodName, "", &pb.AuthStatusRequest{}, append([]string{"none"}, users...), ""},
		{pb.Auth_AuthEnable_FullMethodName, "", &pb.AuthEnableRequest{}, root, ""},
		{pb.Auth_UserAdd_FullMethodName, "", &pb.AuthUserAddRequest{Name: "root"}, root, "FailedPrecondition etcdserver: user name already exists"},
		{pb.Auth_UserDelete_FullMethodName, "", &pb.AuthUserDeleteRequest{Name: "x"}, root, noUser},
		{pb.Auth_UserChangePassword_FullMethodName, "own", &pb.AuthUserChangePasswordRequest{Name: "nobody", Password: "nobody"}, root, ""},
		{pb.Auth_UserGrantRole_FullMethodName, "", &pb.AuthUserGrantRoleRequest{User: "x", Role: "root"}, root, noUser},
		{pb.Auth_UserRevokeRole_FullMethodName, "", &pb.AuthUserRevokeRoleRequest{Name: "x", Role: "root"}, root, noUser},
		{pb.Auth_UserList_FullMethodName, "", &pb.AuthUserListRequest{}, root, ""},
		{pb.Auth_UserGet_FullMethodName, "", &pb.AuthUserGetRequest{Name: "reader"}, []string{"reader", "root"}, ""},
		{pb.Auth_UserGet_FullMethodName, "unknown", &pb.AuthUserGetRequest{Name: "x"}, root, noUser},
		{pb.Auth_RoleAdd_FullMethodName, "", &pb.AuthRoleAddRequest{Name: "root"}, root, "FailedPrecondition etcdserver: role name already exists"},
		{pb.Auth_RoleDelete_FullMethodName, "", &pb.AuthRoleDeleteRequest{Role: "x"}, root, noRole},
		{pb.Auth_RoleGrantPermission_FullMethodName, "", &pb.AuthRoleGrantPermissionRequest{Name: "x", Perm: permission}, root, noRole},
		{pb.Auth_RoleRevokePermission_FullMethodName, "", &pb.AuthRoleRevokePermissionRequest{Role: "x"}, root, noRole},
		{pb.Auth_RoleList_FullMethodName, "", &pb.AuthRoleListRequest{}, root, ""},
		{pb.Auth_RoleGet_FullMethodName, "", &pb.AuthRoleGetRequest{Role: "writer"}, []string{"writer", "root"}, ""},
		{pb.Auth_AuthDisable_FullMethodName, "", &pb.AuthDisableRequest{}, root, ""},
	}
}
