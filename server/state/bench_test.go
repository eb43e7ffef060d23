package state

import (
	"fmt"
	"testing"

	"github.com/kvorum/kvorum/proto/authpb"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// BenchmarkApply is what one command costs the applier, the store's share
// included.
func BenchmarkApply(b *testing.B) {
	put := func(n int) *pb.InternalRaftRequest {
		return &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: fmt.Appendf(nil, "/registry/pods/%08d", n), Value: make([]byte, 256)}}
	}
	txn := func(n int) *pb.InternalRaftRequest {
		p := put(n).Put
		return &pb.InternalRaftRequest{Txn: &pb.TxnRequest{
			Compare: []*pb.Compare{{Key: p.Key, Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: 0}}},
			Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: p}}},
			Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: p.Key}}}},
		}}
	}
	for _, c := range []struct {
		name string
		make func(int) *pb.InternalRaftRequest
		auth bool
	}{{"put", put, false}, {"put-with-auth", put, true}, {"txn", txn, false}} {
		b.Run(c.name, func(b *testing.B) {
			m := newMember(b)
			header := &pb.RequestHeader{ID: 1, Username: "alice", AuthRevision: 1}
			if c.auth {
				header.AuthRevision = m.enableAuthFor(b, "alice")
			}
			const keys = 10_000
			entries := make([][]byte, keys)
			for n := range entries {
				r := c.make(n)
				r.Header = header
				data, err := r.MarshalVT()
				if err != nil {
					b.Fatal(err)
				}
				entries[n] = data
			}
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				if res := m.machine.Apply(m.next(), entries[n%keys]); res.Err != nil {
					b.Fatal(res.Err)
				}
				if n%100 == 99 {
					m.store.Publish()
				}
				if n%keys == keys-1 {
					b.StopTimer()
					if err := m.store.Flush(); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
			}
		})
	}
}

// enableAuthFor turns auth on, with a user who may do everything that is not
// root's, and returns the auth revision.
func (m *member) enableAuthFor(b *testing.B, user string) uint64 {
	b.Helper()
	all := &pb.AuthRoleGrantPermissionRequest{Name: "all", Perm: permissionOnAll()}
	for _, r := range []*pb.InternalRaftRequest{
		{AuthUserAdd: &pb.AuthUserAddRequest{Name: rootName}},
		{AuthUserGrantRole: &pb.AuthUserGrantRoleRequest{User: rootName, Role: rootName}},
		{AuthRoleAdd: &pb.AuthRoleAddRequest{Name: "all"}},
		{AuthRoleGrantPermission: all},
		{AuthUserAdd: &pb.AuthUserAddRequest{Name: user}},
		{AuthUserGrantRole: &pb.AuthUserGrantRoleRequest{User: user, Role: "all"}},
		{AuthEnable: &pb.AuthEnableRequest{}},
	} {
		if res := m.command(Caller{}, r); res.Err != nil {
			b.Fatal(res.Err)
		}
	}
	return m.machine.AuthStatus().Revision
}

func permissionOnAll() *authpb.Permission {
	return &authpb.Permission{PermType: authpb.Permission_READWRITE, Key: []byte{0}, RangeEnd: []byte{0}}
}

// BenchmarkDecode is the machine's own share of a put.
func BenchmarkDecode(b *testing.B) {
	r := &pb.InternalRaftRequest{
		Header: &pb.RequestHeader{ID: 1, Username: "alice", AuthRevision: 7},
		Put:    &pb.PutRequest{Key: []byte("/registry/pods/00000001"), Value: make([]byte, 256)},
	}
	data, err := r.MarshalVT()
	if err != nil {
		b.Fatal(err)
	}
	var d decoder
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := d.decode(data); err != nil {
			b.Fatal(err)
		}
	}
}
