package state

import (
	"math/rand"

	"github.com/kvorum/kvorum/proto/authpb"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/membershippb"
)

// commandSource draws commands of every kind from small domains, so that they
// meet each other: leases that exist and that do not, keys that conflict,
// users with and without roles.
type commandSource struct {
	random *rand.Rand
	id     uint64
}

// entry is what one log entry holds.
type entry struct {
	conf *ConfChange // or else
	data []byte
}

// next draws an entry. now is a machine that has applied all earlier ones; it
// only makes the drawn commands more likely to be in time.
func (s *commandSource) next(now *Machine) entry {
	s.id++
	switch n := s.random.Intn(100); {
	case n < 4:
		return entry{conf: s.confChange()}
	case n < 5:
		return entry{}
	case n < 7:
		return entry{data: s.bytes(40)}
	}
	r := s.request(int64(now.store.Revision()))
	r.Header = s.header(now)
	data, err := r.MarshalVT()
	if err != nil {
		panic(err)
	}
	if s.chance(5) && len(data) > 0 {
		data[s.random.Intn(len(data))] ^= byte(1 << s.random.Intn(8))
	}
	return entry{data: data}
}

func (s *commandSource) chance(percent int) bool { return s.random.Intn(100) < percent }

func (s *commandSource) bytes(n int) []byte {
	b := make([]byte, s.random.Intn(n))
	s.random.Read(b)
	return b
}

func (s *commandSource) header(now *Machine) *pb.RequestHeader {
	auth := now.AuthStatus()
	h := &pb.RequestHeader{ID: s.id, Username: "root", AuthRevision: auth.Revision}
	if s.chance(40) {
		h.Username = s.user()
	}
	if s.chance(5) {
		h.AuthRevision = uint64(s.random.Intn(int(auth.Revision) + 1))
	}
	return h
}

func pick[T any](s *commandSource, of ...T) T { return of[s.random.Intn(len(of))] }

func (s *commandSource) key() []byte {
	return []byte(pick(s, "a", "b", "c", "d", "e", "aa", "b\x00", "\x00v2/a"))
}
func (s *commandSource) end() []byte    { return []byte(pick(s, "", "", "", "c", "e", "\x00")) }
func (s *commandSource) user() string   { return pick(s, "", "root", "alice", "bob", "nobody") }
func (s *commandSource) role() string   { return pick(s, "", "root", "dev", "ops", "none") }
func (s *commandSource) lease() int64   { return int64(s.random.Intn(8) - 1) }
func (s *commandSource) member() uint64 { return uint64(s.random.Intn(6)) }
func (s *commandSource) urls() []string {
	return pick(s, nil, []string{}, []string{"http://a:1"}, []string{"http://b:1", "http://c:1"}, []string{"http://\xff:1"})
}

func (s *commandSource) put() *pb.PutRequest {
	r := &pb.PutRequest{Key: s.key(), Value: s.bytes(20), PrevKv: s.chance(10), IgnoreValue: s.chance(5), IgnoreLease: s.chance(5)}
	if s.chance(30) {
		r.Lease = s.lease()
	}
	return r
}

func (s *commandSource) rangeRequest(revision int64) *pb.RangeRequest {
	r := &pb.RangeRequest{Key: s.key(), RangeEnd: s.end(), Limit: int64(s.random.Intn(3)), KeysOnly: s.chance(10), CountOnly: s.chance(10)}
	if s.chance(20) {
		r.Revision = revision - int64(s.random.Intn(10)) + 1
	}
	return r
}

func (s *commandSource) deleteRange() *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: s.key(), RangeEnd: s.end(), PrevKv: s.chance(20)}
}

func (s *commandSource) txn(revision int64, depth int) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for range s.random.Intn(3) {
		c := &pb.Compare{
			Result: pb.Compare_CompareResult(s.random.Intn(5)),
			Target: pb.Compare_CompareTarget(s.random.Intn(6)),
			Key:    s.key(), RangeEnd: s.end(),
		}
		if s.chance(80) {
			c.TargetUnion = &pb.Compare_Version{Version: int64(s.random.Intn(3))}
		}
		r.Compare = append(r.Compare, c)
	}
	r.Success, r.Failure = s.branch(revision, depth), s.branch(revision, depth)
	return r
}

func (s *commandSource) branch(revision int64, depth int) []*pb.RequestOp {
	var ops []*pb.RequestOp
	for range s.random.Intn(4) {
		op := &pb.RequestOp{}
		switch s.random.Intn(5) {
		case 0:
			op.Request = &pb.RequestOp_RequestRange{RequestRange: s.rangeRequest(revision)}
		case 1, 2:
			op.Request = &pb.RequestOp_RequestPut{RequestPut: s.put()}
		case 3:
			op.Request = &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: s.deleteRange()}
		case 4:
			if depth > 0 {
				op.Request = &pb.RequestOp_RequestTxn{RequestTxn: s.txn(revision, depth-1)}
			}
		}
		ops = append(ops, op)
	}
	return ops
}

// request draws a request; about half of them are on keys.
func (s *commandSource) request(revision int64) *pb.InternalRaftRequest {
	r := &pb.InternalRaftRequest{}
	switch s.random.Intn(32) {
	default:
		r.Put = s.put()
	case 0, 1:
		r.Txn = s.txn(revision, 2)
	case 2:
		r.DeleteRange = s.deleteRange()
	case 3:
		r.Range = s.rangeRequest(revision)
	case 4:
		r.Compaction = &pb.CompactionRequest{Revision: revision - int64(s.random.Intn(20)) + 2, Physical: s.chance(10)}
	case 5, 6:
		r.LeaseGrant = &pb.LeaseGrantRequest{ID: s.lease(), TTL: pick(s, int64(-1), 0, 1, 60, 9_000_000_000, 9_000_000_001)}
	case 7:
		r.LeaseRevoke = &pb.LeaseRevokeRequest{ID: s.lease()}
	case 8:
		r.LeaseCheckpoint = &pb.LeaseCheckpointRequest{Checkpoints: []*pb.LeaseCheckpoint{{ID: s.lease(), Remaining_TTL: int64(s.random.Intn(5))}, {ID: s.lease()}}}
	case 9:
		// Cleared more often than raised, or nothing else would be applied.
		action := pb.AlarmRequest_DEACTIVATE
		if s.chance(25) {
			action = pick(s, pb.AlarmRequest_GET, pb.AlarmRequest_ACTIVATE, 9)
		}
		r.Alarm = &pb.AlarmRequest{Action: action, MemberID: uint64(s.random.Intn(2)), Alarm: pb.AlarmType(s.random.Intn(4))}
	case 10:
		s.clusterRequest(r)
	case 11, 12, 13, 14:
		s.authRequest(r)
	case 15, 16, 17, 18, 19, 20:
		s.v2Request(r)
	}
	return r
}

func (s *commandSource) clusterRequest(r *pb.InternalRaftRequest) {
	version := pick(s, "3.0.0", "3.5.0", "3.6.0", "3.7.0", "3.7.1-rc.1", "three")
	switch s.random.Intn(4) {
	case 0:
		r.ClusterVersionSet = &membershippb.ClusterVersionSetRequest{Ver: version}
	case 1:
		r.ClusterMemberAttrSet = &membershippb.ClusterMemberAttrSetRequest{Member_ID: s.member(), MemberAttributes: &membershippb.Attributes{Name: pick(s, "", "n", "<&>", "\xff"), ClientUrls: s.urls()}}
	case 2:
		r.DowngradeInfoSet = &membershippb.DowngradeInfoSetRequest{Enabled: s.chance(50), Ver: version}
	case 3:
		r.ClusterMemberAttrSet = &membershippb.ClusterMemberAttrSetRequest{Member_ID: s.member()}
	}
}

func (s *commandSource) authRequest(r *pb.InternalRaftRequest) {
	hash := pick(s, "", "aGFzaA==", "*")
	switch s.random.Intn(18) {
	case 0:
		r.AuthEnable = &pb.AuthEnableRequest{}
	case 1:
		r.AuthDisable = &pb.AuthDisableRequest{}
	case 2:
		r.Authenticate = &pb.InternalAuthenticateRequest{Name: s.user(), SimpleToken: pick(s, "", "tok")}
	case 3:
		r.AuthStatus = &pb.AuthStatusRequest{}
	case 4, 5:
		r.AuthUserAdd = &pb.AuthUserAddRequest{Name: s.user(), Password: pick(s, "", "p"), HashedPassword: hash}
		if s.chance(20) {
			r.AuthUserAdd.Options = &authpb.UserAddOptions{NoPassword: s.chance(50)}
		}
	case 6:
		r.AuthUserDelete = &pb.AuthUserDeleteRequest{Name: s.user()}
	case 7:
		r.AuthUserGet = &pb.AuthUserGetRequest{Name: s.user()}
	case 8:
		r.AuthUserChangePassword = &pb.AuthUserChangePasswordRequest{Name: s.user(), HashedPassword: hash}
	case 9, 10:
		r.AuthUserGrantRole = &pb.AuthUserGrantRoleRequest{User: s.user(), Role: s.role()}
	case 11:
		r.AuthUserRevokeRole = &pb.AuthUserRevokeRoleRequest{Name: s.user(), Role: s.role()}
	case 12:
		r.AuthUserList, r.AuthRoleList = &pb.AuthUserListRequest{}, nil
	case 13:
		r.AuthRoleList = &pb.AuthRoleListRequest{}
	case 14:
		r.AuthRoleAdd = &pb.AuthRoleAddRequest{Name: s.role()}
	case 15:
		if s.chance(30) {
			r.AuthRoleDelete = &pb.AuthRoleDeleteRequest{Role: s.role()}
		} else {
			r.AuthRoleGet = &pb.AuthRoleGetRequest{Role: s.role()}
		}
	case 16:
		r.AuthRoleGrantPermission = &pb.AuthRoleGrantPermissionRequest{Name: s.role()}
		if s.chance(90) {
			r.AuthRoleGrantPermission.Perm = &authpb.Permission{PermType: authpb.Permission_Type(s.random.Intn(3)), Key: s.key(), RangeEnd: s.end()}
		}
	case 17:
		r.AuthRoleRevokePermission = &pb.AuthRoleRevokePermissionRequest{Role: s.role(), Key: s.key(), RangeEnd: s.end()}
	}
}

func (s *commandSource) confChange() *ConfChange {
	id := MemberID(s.member())
	cc := &ConfChange{ID: s.id, Kind: ConfChangeKind(s.random.Intn(5)), Member: id}
	switch {
	case s.chance(20):
		cc.Context = PromoteContext(id)
	case s.chance(10):
		cc.Context = s.bytes(20)
	default:
		cc.Context = MemberContext(Member{ID: id, PeerURLs: s.urls(), IsLearner: cc.Kind == AddLearnerNode || s.chance(5), Name: pick(s, "", "n")})
	}
	return cc
}
