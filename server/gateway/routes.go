package gateway

import (
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/kvorum/kvorum/internal/must"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/v3electionpb"
	"github.com/kvorum/kvorum/proto/v3lockpb"
)

// paths maps each path to its gRPC method. KV/RangeStream has no path.
func paths() map[string]string {
	return map[string]string{
		"/v3/kv/range":       pb.KV_Range_FullMethodName,
		"/v3/kv/put":         pb.KV_Put_FullMethodName,
		"/v3/kv/deleterange": pb.KV_DeleteRange_FullMethodName,
		"/v3/kv/txn":         pb.KV_Txn_FullMethodName,
		"/v3/kv/compaction":  pb.KV_Compact_FullMethodName,

		"/v3/watch": pb.Watch_Watch_FullMethodName,

		"/v3/lease/grant":         pb.Lease_LeaseGrant_FullMethodName,
		"/v3/lease/revoke":        pb.Lease_LeaseRevoke_FullMethodName,
		"/v3/lease/keepalive":     pb.Lease_LeaseKeepAlive_FullMethodName,
		"/v3/lease/timetolive":    pb.Lease_LeaseTimeToLive_FullMethodName,
		"/v3/lease/leases":        pb.Lease_LeaseLeases_FullMethodName,
		"/v3/kv/lease/revoke":     pb.Lease_LeaseRevoke_FullMethodName,
		"/v3/kv/lease/timetolive": pb.Lease_LeaseTimeToLive_FullMethodName,
		"/v3/kv/lease/leases":     pb.Lease_LeaseLeases_FullMethodName,

		"/v3/cluster/member/add":     pb.Cluster_MemberAdd_FullMethodName,
		"/v3/cluster/member/remove":  pb.Cluster_MemberRemove_FullMethodName,
		"/v3/cluster/member/update":  pb.Cluster_MemberUpdate_FullMethodName,
		"/v3/cluster/member/list":    pb.Cluster_MemberList_FullMethodName,
		"/v3/cluster/member/promote": pb.Cluster_MemberPromote_FullMethodName,

		"/v3/maintenance/alarm":               pb.Maintenance_Alarm_FullMethodName,
		"/v3/maintenance/status":              pb.Maintenance_Status_FullMethodName,
		"/v3/maintenance/defragment":          pb.Maintenance_Defragment_FullMethodName,
		"/v3/maintenance/hash":                pb.Maintenance_Hash_FullMethodName,
		"/v3/maintenance/hashkv":              pb.Maintenance_HashKV_FullMethodName,
		"/v3/maintenance/snapshot":            pb.Maintenance_Snapshot_FullMethodName,
		"/v3/maintenance/transfer-leadership": pb.Maintenance_MoveLeader_FullMethodName,
		"/v3/maintenance/downgrade":           pb.Maintenance_Downgrade_FullMethodName,

		"/v3/auth/enable":        pb.Auth_AuthEnable_FullMethodName,
		"/v3/auth/disable":       pb.Auth_AuthDisable_FullMethodName,
		"/v3/auth/status":        pb.Auth_AuthStatus_FullMethodName,
		"/v3/auth/authenticate":  pb.Auth_Authenticate_FullMethodName,
		"/v3/auth/user/add":      pb.Auth_UserAdd_FullMethodName,
		"/v3/auth/user/get":      pb.Auth_UserGet_FullMethodName,
		"/v3/auth/user/list":     pb.Auth_UserList_FullMethodName,
		"/v3/auth/user/delete":   pb.Auth_UserDelete_FullMethodName,
		"/v3/auth/user/changepw": pb.Auth_UserChangePassword_FullMethodName,
		"/v3/auth/user/grant":    pb.Auth_UserGrantRole_FullMethodName,
		"/v3/auth/user/revoke":   pb.Auth_UserRevokeRole_FullMethodName,
		"/v3/auth/role/add":      pb.Auth_RoleAdd_FullMethodName,
		"/v3/auth/role/get":      pb.Auth_RoleGet_FullMethodName,
		"/v3/auth/role/list":     pb.Auth_RoleList_FullMethodName,
		"/v3/auth/role/delete":   pb.Auth_RoleDelete_FullMethodName,
		"/v3/auth/role/grant":    pb.Auth_RoleGrantPermission_FullMethodName,
		"/v3/auth/role/revoke":   pb.Auth_RoleRevokePermission_FullMethodName,

		"/v3/lock/lock":   v3lockpb.Lock_Lock_FullMethodName,
		"/v3/lock/unlock": v3lockpb.Lock_Unlock_FullMethodName,

		"/v3/election/campaign": v3electionpb.Election_Campaign_FullMethodName,
		"/v3/election/proclaim": v3electionpb.Election_Proclaim_FullMethodName,
		"/v3/election/leader":   v3electionpb.Election_Leader_FullMethodName,
		"/v3/election/observe":  v3electionpb.Election_Observe_FullMethodName,
		"/v3/election/resign":   v3electionpb.Election_Resign_FullMethodName,
	}
}

// route is one method and its messages.
type route struct {
	method          string // as gRPC has it in :path
	request, answer protoreflect.MessageType
	stream          grpc.StreamDesc // neither side streams: unary
}

func (r *route) unary() bool { return !r.stream.ServerStreams && !r.stream.ClientStreams }

// routes completes paths from the descriptors in the generated code.
func routes() map[string]*route {
	all := map[string]*route{}
	for path, method := range paths() {
		all[path] = newRoute(method)
	}
	return all
}

func newRoute(method string) *route {
	name := protoreflect.FullName(strings.ReplaceAll(method[1:], "/", "."))
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	must.NoError(err, "find the method of a path")
	m := d.(protoreflect.MethodDescriptor)
	return &route{
		method: method, request: messageType(m.Input()), answer: messageType(m.Output()),
		stream: grpc.StreamDesc{ServerStreams: m.IsStreamingServer(), ClientStreams: m.IsStreamingClient()},
	}
}

func messageType(d protoreflect.MessageDescriptor) protoreflect.MessageType {
	t, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	must.NoError(err, "find the message of a method")
	return t
}
