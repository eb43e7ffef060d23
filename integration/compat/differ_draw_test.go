package compat

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/url"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// draw makes random requests. It keeps to few keys, values, leases and names, so that requests meet each other, and
// chooses every option, good or bad, often enough.
type draw struct {
	*rand.Rand
	revision int64
	auth     bool // whether requests come from users and most are about them
}

func newDraw(seed uint64, auth bool) *draw {
	return &draw{Rand: rand.New(rand.NewPCG(seed, 1)), auth: auth}
}

func (d *draw) oneIn(n int) bool { return d.IntN(n) == 0 }

func pick[T any](d *draw, all ...T) T { return all[d.IntN(len(all))] }

// rarely is the odd value once in n times, otherwise the usual one.
func rarely[T any](d *draw, n int, odd, usual T) T {
	if d.oneIn(n) {
		return odd
	}
	return usual
}

// next draws the next step.
func (d *draw) next(revision int64) step {
	for {
		if s := d.any(revision); !endsEtcd(s) && !overlong(s.request) {
			return s
		}
	}
}

// overlong tells whether the bytes hold a number of more than 64 bits: etcd refuses the request, Kvorum takes the low 64
// bits, and from then on the two stores differ. To look for them would cost every request.
func overlong(request []byte) bool {
	run := 0
	for _, b := range request {
		if run >= 9 && b > 1 {
			return true
		}
		run++
		if b < 0x80 {
			run = 0
		}
	}
	return false
}

// endsEtcd tells whether etcd's process ends at a request, so that nothing can be compared: an alarm request with an
// action that does not exist, and URLs for another member that are none. Kvorum answers both.
func endsEtcd(s step) bool {
	message := inputOf(s.method)
	if proto.Unmarshal(s.request, message) != nil {
		return false
	}
	switch r := message.(type) {
	case *pb.AlarmRequest:
		_, known := pb.AlarmRequest_AlarmAction_name[int32(r.Action)]
		return !known
	case *pb.MemberUpdateRequest:
		for _, text := range r.PeerURLs {
			if u, err := url.Parse(text); err != nil || u.Scheme != "http" || u.Port() == "" || u.Path != "" {
				return true
			}
		}
		return len(r.PeerURLs) == 0
	}
	return false
}

func (d *draw) any(revision int64) step {
	d.revision = revision
	s := step{at: revision}
	method, message := d.request()
	s.method, s.request = method, encode(message)
	if method == watchMethod {
		s.stream = d.IntN(3)
	}
	if d.auth {
		s.as = pick(d, "root", "root", "root", "alice", "alice", "bob", "bob", "carol", "")
		if d.oneIn(40) {
			s.as = pick(d, "=nonsense", "=nonsense.17", "=Bearer nonsense.1", "=.", "=\x01")
		}
	}
	if d.oneIn(60) {
		s.request = d.spoil(s.request)
	}
	return s
}

// spoil makes a request that no client library would send.
func (d *draw) spoil(request []byte) []byte {
	request = bytes.Clone(request)
	switch d.IntN(6) {
	case 0: // an unknown field
		request = protowire.AppendTag(request, 777, protowire.BytesType)
		return protowire.AppendBytes(request, []byte("unknown"))
	case 1: // an unknown number
		request = protowire.AppendTag(request, 12345, protowire.VarintType)
		return protowire.AppendVarint(request, 1<<63)
	case 2: // cut off
		return request[:d.IntN(len(request)+1)]
	case 3: // a string that is not UTF-8, where there is a string
		return bytes.ReplaceAll(bytes.ReplaceAll(request, []byte("ali"), []byte("\xff\xfei")), []byte("r1"), []byte("\xc0\x80"))
	case 4: // one byte changed
		if len(request) > 0 {
			request[d.IntN(len(request))] ^= byte(1 << d.IntN(8))
		}
		return request
	}
	request = protowire.AppendTag(request, 1, protowire.VarintType) // the wrong type for a first field, mostly
	return protowire.AppendVarint(request, uint64(d.IntN(5)))
}

// request draws a method and its message.
func (d *draw) request() (string, proto.Message) {
	n := d.IntN(100)
	if d.auth && n < 60 {
		return d.authRequest()
	}
	switch n = d.IntN(100); {
	case n < 22:
		return kv("Range"), d.rangeRequest(false)
	case n < 25:
		return kv("RangeStream"), d.rangeRequest(true)
	case n < 45:
		return kv("Put"), d.put()
	case n < 51:
		return kv("DeleteRange"), d.deleteRange()
	case n < 68:
		return kv("Txn"), d.txn(3)
	case n < 71:
		return kv("Compact"), d.compact()
	case n < 82:
		return watchMethod, d.watch()
	case n < 91:
		return d.lease()
	case n < 97:
		return d.maintenance()
	}
	return d.cluster()
}

func kv(method string) string          { return "/etcdserverpb.KV/" + method }
func maintenance(method string) string { return "/etcdserverpb.Maintenance/" + method }
func cluster(method string) string     { return "/etcdserverpb.Cluster/" + method }
func leases(method string) string      { return "/etcdserverpb.Lease/" + method }
func users(method string) string       { return "/etcdserverpb.Auth/" + method }

// key is one of few keys; now and then an empty one, or one that is hard to handle.
func (d *draw) key() []byte {
	if d.oneIn(40) {
		return pick(d, nil, []byte("\x00"), []byte("\xff"), []byte("\xff\xff"), bytes.Repeat([]byte("k"), 300), []byte("\xfe\x00\x80"))
	}
	return []byte(fmt.Sprintf("%s%s", pick(d, "a", "b", "c"), pick(d, "", "", "/1", "/2", "/3", "/3\x00", "/\xff")))
}

// keys is a key and the end of its range; mostly a single key.
//
// With users there are no ranges that end before they begin: whether etcd allows one depends on the shape of its tree of
// permissions.
func (d *draw) keys() (key, end []byte) {
	key, end = d.anyKeys()
	if d.auth && len(end) > 0 && string(end) != "\x00" && bytes.Compare(key, end) >= 0 {
		return end, append(bytes.Clone(key), 1)
	}
	return key, end
}

func (d *draw) anyKeys() (key, end []byte) {
	key = d.key()
	switch d.IntN(6) {
	case 0:
		return key, []byte("\x00")
	case 1:
		return key, d.key()
	case 2:
		return []byte("a"), []byte("d")
	case 3:
		return []byte("\x00"), []byte("\x00")
	}
	return key, nil
}

func (d *draw) value() []byte {
	if d.oneIn(60) {
		return bytes.Repeat([]byte("v"), d.IntN(3000))
	}
	return pick(d, nil, []byte("1"), []byte("2"), []byte("3"), []byte("\x00\xff"), []byte("long value"))
}

// rev is a revision to read at: mostly now, otherwise past, compacted, future or absurd.
func (d *draw) rev() int64 {
	switch d.IntN(12) {
	case 0, 1, 2:
		return d.revision - int64(d.IntN(12))
	case 3:
		return d.revision
	case 4:
		return rarely(d, 3, d.revision+1+int64(d.IntN(3)), d.revision-int64(d.IntN(60)))
	case 5:
		return rarely(d, 3, pick(d, int64(-1), int64(1), 1<<40, 1<<62, -1<<63), 0)
	}
	return 0
}

// bound is a filter's revision: mostly none.
func (d *draw) bound() int64 {
	if d.oneIn(8) {
		return rarely(d, 8, -1, d.revision-int64(d.IntN(30)))
	}
	return 0
}

func (d *draw) rangeRequest(stream bool) *pb.RangeRequest {
	r := &pb.RangeRequest{Revision: d.rev(), Serializable: d.oneIn(3), KeysOnly: d.oneIn(6), CountOnly: d.oneIn(10)}
	r.Key, r.RangeEnd = d.keys()
	if d.oneIn(3) {
		r.Limit = rarely(d, 10, pick(d, int64(-1), 1<<62, -1<<63), int64(d.IntN(6)))
	}
	if !stream || d.oneIn(6) {
		if d.oneIn(2) {
			r.SortOrder = pb.RangeRequest_SortOrder(rarely(d, 40, 7, int32(d.IntN(3))))
			r.SortTarget = pb.RangeRequest_SortTarget(rarely(d, 40, -1, int32(d.IntN(5))))
		}
		r.MinModRevision, r.MaxModRevision = d.bound(), d.bound()
		r.MinCreateRevision, r.MaxCreateRevision = d.bound(), d.bound()
	}
	return r
}

// leaseID is one of few leases, none, or one that the server chose.
func (d *draw) leaseID() int64 {
	return pick(d, int64(0), 1, 2, 3, 4, 5, -6, 1<<62, -1<<63, chosenLease, chosenLease+1)
}

func (d *draw) put() *pb.PutRequest {
	p := &pb.PutRequest{Key: d.key(), Value: d.value(), PrevKv: d.oneIn(3)}
	if d.oneIn(4) {
		// One that the server chose would make the stored records differ, and with them the hashes.
		p.Lease = pick(d, int64(0), 1, 2, 3, 4, 5, -6, 1<<62, -1<<63)
	}
	if d.oneIn(8) {
		p.IgnoreValue = true
		p.Value = rarely(d, 5, p.Value, nil)
	}
	if d.oneIn(8) {
		p.IgnoreLease = true
		p.Lease = rarely(d, 5, p.Lease, 0)
	}
	return p
}

func (d *draw) deleteRange() *pb.DeleteRangeRequest {
	r := &pb.DeleteRangeRequest{PrevKv: d.oneIn(2)}
	r.Key, r.RangeEnd = d.keys()
	if d.oneIn(2) {
		r.RangeEnd = nil
	}
	return r
}

// txn draws a transaction; those inside it go no deeper than depth.
func (d *draw) txn(depth int) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	for range d.IntN(3) {
		t.Compare = append(t.Compare, d.compare())
	}
	readOnly := d.oneIn(4)
	for range d.IntN(4) {
		t.Success = append(t.Success, d.op(depth-1, readOnly))
	}
	for range d.IntN(3) {
		t.Failure = append(t.Failure, d.op(depth-1, readOnly))
	}
	if d.oneIn(80) {
		for range pick(d, 127, 128, 129) {
			t.Success = append(t.Success, d.op(0, true))
		}
	}
	return t
}

func (d *draw) op(depth int, readOnly bool) *pb.RequestOp {
	n := d.IntN(10)
	switch {
	case readOnly || n < 4:
		r := d.rangeRequest(false)
		if d.oneIn(2) {
			r.Revision = 0
		}
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
	case n < 7:
		p := d.put()
		p.Lease, p.IgnoreValue, p.IgnoreLease = rarely(d, 4, p.Lease, 0), rarely(d, 4, p.IgnoreValue, false), rarely(d, 4, p.IgnoreLease, false)
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: p}}
	case n == 7 && d.oneIn(12):
		return &pb.RequestOp{}
	case n < 9 || depth <= 0:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: d.deleteRange()}}
	}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: d.txn(depth)}}
}

func (d *draw) compare() *pb.Compare {
	c := &pb.Compare{
		Key:    d.key(),
		Result: pb.Compare_CompareResult(rarely(d, 40, 9, int32(d.IntN(4)))),
		Target: pb.Compare_CompareTarget(rarely(d, 40, 9, int32(d.IntN(5)))),
	}
	if d.oneIn(4) {
		_, c.RangeEnd = d.keys()
	}
	target := c.Target
	if d.oneIn(20) { // a value of another kind than the target's
		target = pb.Compare_CompareTarget(d.IntN(6))
	}
	switch target {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: int64(d.IntN(4))}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: rarely(d, 3, 0, max(0, d.revision-int64(d.IntN(20))))}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: rarely(d, 3, 0, max(0, d.revision-int64(d.IntN(20))))}
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: d.value()}
	case pb.Compare_LEASE:
		c.TargetUnion = &pb.Compare_Lease{Lease: d.leaseID()}
	}
	return c
}

func (d *draw) compact() *pb.CompactionRequest {
	c := &pb.CompactionRequest{Revision: d.revision - int64(d.IntN(40)), Physical: d.oneIn(3)}
	if d.oneIn(3) {
		c.Revision = pick(d, 0, -1, 1, d.revision, d.revision+1, 1<<50, -1<<63)
	}
	return c
}

func (d *draw) watch() *pb.WatchRequest {
	switch n := d.IntN(20); {
	case n == 0:
		return &pb.WatchRequest{}
	case n < 6:
		cancel := &pb.WatchCancelRequest{WatchId: rarely(d, 6, pick(d, int64(-1), 99, 1<<62), int64(d.IntN(5)))}
		return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: cancel}}
	case n == 6:
		return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
	}
	c := &pb.WatchCreateRequest{PrevKv: d.oneIn(2), ProgressNotify: d.oneIn(4), Fragment: d.oneIn(4)}
	c.Key, c.RangeEnd = d.keys()
	switch d.IntN(8) {
	case 0, 1:
		c.StartRevision = d.revision - int64(d.IntN(30))
	case 2:
		c.StartRevision = d.revision + int64(d.IntN(4))
	case 3:
		c.StartRevision = rarely(d, 4, pick(d, int64(-1), 1, -1<<63), 0)
	}
	for range rarely(d, 4, 2, rarely(d, 2, 1, 0)) {
		c.Filters = append(c.Filters, pb.WatchCreateRequest_FilterType(rarely(d, 10, 5, int32(d.IntN(2)))))
	}
	if d.oneIn(5) {
		c.WatchId = pick(d, int64(1), 2, 3, 7, -1, -7, 1<<62)
	}
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: c}}
}

func (d *draw) lease() (string, proto.Message) {
	switch d.IntN(10) {
	case 0, 1, 2, 3:
		// Lifetimes are far apart and long: none ends during the test, and their order is that of their ends.
		g := &pb.LeaseGrantRequest{ID: d.leaseID(), TTL: int64(10000 * (1 + d.IntN(9)))}
		return leases("LeaseGrant"), func() proto.Message {
			g.TTL = rarely(d, 12, pick(d, 9000000000, int64(9000000001), 1<<62), g.TTL)
			return g
		}()
	case 4, 5:
		return leases("LeaseRevoke"), &pb.LeaseRevokeRequest{ID: d.leaseID()}
	case 6, 7:
		return leases("LeaseTimeToLive"), &pb.LeaseTimeToLiveRequest{ID: d.leaseID(), Keys: d.oneIn(2)}
	case 8:
		return leases("LeaseLeases"), &pb.LeaseLeasesRequest{}
	}
	return leases("LeaseKeepAlive"), &pb.LeaseKeepAliveRequest{ID: d.leaseID()}
}

func (d *draw) maintenance() (string, proto.Message) {
	switch n := d.IntN(20); {
	case n < 3:
		return maintenance("Status"), &pb.StatusRequest{}
	case n < 9:
		a := &pb.AlarmRequest{Alarm: pb.AlarmType(rarely(d, 30, 7, int32(d.IntN(3)))), MemberID: pick(d, uint64(0), 0, 1, 77)}
		a.Action = pb.AlarmRequest_AlarmAction(rarely(d, 30, 9, pick(d, int32(0), 1, 2, 2, 2)))
		return maintenance("Alarm"), a
	case n < 10:
		return maintenance("Defragment"), &pb.DefragmentRequest{}
	case n < 16:
		return maintenance("HashKV"), &pb.HashKVRequest{Revision: d.rev()}
	case n < 17:
		return maintenance("Hash"), &pb.HashRequest{}
	case n < 18:
		return maintenance("Snapshot"), &pb.SnapshotRequest{}
	}
	return maintenance("MoveLeader"), &pb.MoveLeaderRequest{TargetID: pick(d, uint64(0), 1, 1<<63, chosenMember)}
}

// cluster draws changes of members: learners only, since a second voter that never starts would end the quorum.
func (d *draw) cluster() (string, proto.Message) {
	url := func() []string {
		return pick(d, []string{"http://127.0.0.1:7101"}, []string{"http://127.0.0.1:7102"}, []string{"http://127.0.0.1:7001"},
			[]string{"http://127.0.0.1:7103", "http://127.0.0.1:7104"}, nil, []string{"nonsense"}, []string{"http://127.0.0.1:7105/path"},
			[]string{"ftp://127.0.0.1:7105"}, []string{"http://127.0.0.1"}, []string{""}, []string{"http://host:7105", "http://host:7105"})
	}
	id := func() uint64 { return pick(d, uint64(0), 1, chosenMember, chosenMember+1, chosenMember+2, 1<<63) }
	switch d.IntN(6) {
	case 0, 1:
		return cluster("MemberAdd"), &pb.MemberAddRequest{PeerURLs: url(), IsLearner: true}
	case 2:
		return cluster("MemberList"), &pb.MemberListRequest{Linearizable: d.oneIn(2)}
	case 3:
		return cluster("MemberRemove"), &pb.MemberRemoveRequest{ID: id()}
	case 4:
		return cluster("MemberUpdate"), &pb.MemberUpdateRequest{ID: id(), PeerURLs: url()}
	}
	return cluster("MemberPromote"), &pb.MemberPromoteRequest{ID: id()}
}

func (d *draw) user() string {
	return pick(d, "root", "alice", "alice", "bob", "bob", "carol", rarely(d, 3, "", "nobody"))
}
func (d *draw) role() string {
	return pick(d, "root", "r1", "r1", "r2", "r3", rarely(d, 3, "", "none"))
}

// password is nearly always the user's.
func (d *draw) password(user string) string {
	return rarely(d, 12, pick(d, "", "wrong"), user+"-secret")
}

func (d *draw) permission() *authpb.Permission {
	if d.oneIn(30) {
		return nil
	}
	p := &authpb.Permission{PermType: authpb.Permission_Type(rarely(d, 30, 5, int32(d.IntN(3))))}
	p.Key, p.RangeEnd = d.keys()
	return p
}

func (d *draw) authRequest() (string, proto.Message) {
	user, role := d.user(), d.role()
	switch n := d.IntN(50); {
	case n < 10:
		return users("Authenticate"), &pb.AuthenticateRequest{Name: user, Password: d.password(user)}
	case n < 14:
		u := &pb.AuthUserAddRequest{Name: user, Password: d.password(user)}
		if d.oneIn(6) {
			u.Options = &authpb.UserAddOptions{NoPassword: d.oneIn(2)}
		}
		u.HashedPassword = rarely(d, 25, pick(d, "nonsense", "bm9uc2Vuc2U="), "")
		return users("UserAdd"), u
	case n < 17:
		return users("UserGet"), &pb.AuthUserGetRequest{Name: user}
	case n < 18:
		return users("UserList"), &pb.AuthUserListRequest{}
	case n < 20:
		return users("UserDelete"), &pb.AuthUserDeleteRequest{Name: user}
	case n < 22:
		return users("UserChangePassword"), &pb.AuthUserChangePasswordRequest{Name: user, Password: user + "-secret"}
	case n < 27:
		return users("UserGrantRole"), &pb.AuthUserGrantRoleRequest{User: user, Role: role}
	case n < 29:
		return users("UserRevokeRole"), &pb.AuthUserRevokeRoleRequest{Name: user, Role: role}
	case n < 32:
		return users("RoleAdd"), &pb.AuthRoleAddRequest{Name: role}
	case n < 35:
		return users("RoleGet"), &pb.AuthRoleGetRequest{Role: role}
	case n < 36:
		return users("RoleList"), &pb.AuthRoleListRequest{}
	case n < 37:
		return users("RoleDelete"), &pb.AuthRoleDeleteRequest{Role: role}
	case n < 42:
		return users("RoleGrantPermission"), &pb.AuthRoleGrantPermissionRequest{Name: role, Perm: d.permission()}
	case n < 44:
		r := &pb.AuthRoleRevokePermissionRequest{Role: role}
		r.Key, r.RangeEnd = d.keys()
		return users("RoleRevokePermission"), r
	case n < 46:
		return users("AuthStatus"), &pb.AuthStatusRequest{}
	case n < 49:
		return users("AuthEnable"), &pb.AuthEnableRequest{}
	}
	return users("AuthDisable"), &pb.AuthDisableRequest{}
}
