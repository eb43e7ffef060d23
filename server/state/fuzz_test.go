package state

import (
	"math/rand"
	"testing"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// If this fails, bytes in the log can stop every member of a cluster at once,
// and again at each restart.
func FuzzApply(f *testing.F) {
	source := &commandSource{random: rand.New(rand.NewSource(1))}
	for range 200 {
		r := source.request(5)
		r.Header = &pb.RequestHeader{ID: 7, Username: "root", AuthRevision: 3}
		data, err := r.MarshalVT()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := newMember(t)
		for _, r := range []*pb.InternalRaftRequest{
			{AuthUserAdd: &pb.AuthUserAddRequest{Name: "root"}},
			{AuthUserGrantRole: &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}},
			{LeaseGrant: &pb.LeaseGrantRequest{ID: 1, TTL: 60}},
			{Put: &pb.PutRequest{Key: []byte("a"), Lease: 1}},
			{Put: &pb.PutRequest{Key: []byte("b")}},
			{AuthEnable: &pb.AuthEnableRequest{}},
		} {
			if res := m.command(Caller{}, r); res.Err != nil {
				t.Fatal(res.Err)
			}
		}
		before := m.image() + m.memory()
		res := m.apply(data)
		if m.store.Applied().Index != m.index {
			t.Fatalf("applied index %d, want %d", m.store.Applied().Index, m.index)
		}
		memory := m.memory()
		if res.Err != nil && m.image()+memory != before {
			t.Fatalf("refused (%v), but changed something", res.Err)
		}
		if err := m.machine.Reload(); err != nil {
			t.Fatal(err)
		}
		if again := m.memory(); again != memory {
			t.Fatalf("memory:\n%s\nstore:\n%s", memory, again)
		}
	})
}
