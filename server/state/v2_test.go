package state

import (
	"fmt"
	"strings"
	"testing"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server/state/v2keys"
)

// v2Request draws a change of the v2 keys or of users as v2 changes them.
func (s *commandSource) v2Request(r *pb.InternalRaftRequest) {
	if s.chance(25) {
		r.V2Auth = &pb.V2AuthRequest{
			Method: pb.V2AuthRequest_Method(s.random.Intn(9)), Name: s.user(), HashedPassword: pick(s, "", "aGFzaA==", "*"),
			Roles: pick(s, nil, []string{"dev", "none"}), GrantRoles: pick(s, nil, []string{"ops"}), RevokeRoles: pick(s, nil, []string{"ops"}),
			Read: pick(s, nil, []string{"/a*", "/b"}), Write: pick(s, nil, []string{"/a*"}),
			RevokeRead: pick(s, nil, []string{"/b"}), RevokeWrite: pick(s, nil, []string{"/a*"}),
		}
		if s.chance(50) {
			r.V2Auth.Name = s.role()
		}
		return
	}
	path := ""
	for range 1 + s.random.Intn(3) {
		path += "/" + pick(s, "a", "b", "_c", "a-b")
	}
	r.V2 = &pb.V2Request{
		Method: pb.V2Request_Method(s.random.Intn(8)), Path: pick(s, path, path, path, "/", "a/", ""), Value: s.bytes(5),
		Dir: s.chance(20), Recursive: s.chance(30), Refresh: s.chance(10),
	}
	if s.chance(30) {
		r.V2.Lease, r.V2.TtlSeconds, r.V2.Expiration = s.lease(), pick(s, int64(0), 5, -1), 1_000_000
	}
	if s.chance(20) {
		r.V2.PrevIndex = uint64(s.random.Intn(200))
	}
}

// describeV2 is an answer of the v2 commands as text.
func describeV2(message any) string {
	switch a := message.(type) {
	case *v2keys.Answer:
		out := fmt.Sprintf("%s@%d %s", a.Action, a.Index, describeNode(a.Node))
		if a.Prev != nil {
			out += " was " + describeNode(a.Prev)
		}
		return out
	case *V2User:
		return fmt.Sprintf("user %q roles %q", a.Name, a.Roles)
	case *V2Role:
		return fmt.Sprintf("role %q read %q write %q", a.Name, a.Read, a.Write)
	}
	return ""
}

func describeNode(n *v2keys.Node) string {
	out := fmt.Sprintf("%s=%q", n.Path, n.Value)
	if n.Dir {
		out = n.Path + "/"
	}
	out += fmt.Sprintf(" modified=%d created=%d", n.Modified, n.Created)
	if n.Expiration != 0 {
		out += fmt.Sprintf(" expires=%d", n.Expiration)
	}
	return out
}

// v2Tree is all nodes as a reader finds them, one per line.
func (m *member) v2Tree() string {
	m.t.Helper()
	root, err := v2keys.Look(m.store, v2keys.Root, true)
	if err != nil {
		return err.Error() + "\n"
	}
	var out strings.Builder
	var walk func(n *v2keys.Node)
	walk = func(n *v2keys.Node) {
		for _, child := range n.Nodes {
			out.WriteString(describeNode(child) + "\n")
			walk(child)
		}
	}
	walk(root)
	return out.String()
}

// If this fails, a v2 node does not end with its lease, takes others along, or
// leaves leases behind that nobody ever ends.
func TestV2LeasesEndWithTheirNodes(t *testing.T) {
	m := newMember(t)
	v2 := func(r *pb.V2Request) Result {
		t.Helper()
		res := m.command(Caller{}, &pb.InternalRaftRequest{V2: r})
		if res.Err != nil {
			t.Fatalf("%v: %v", r, res.Err)
		}
		return res
	}
	v2(&pb.V2Request{Path: "/d", Dir: true, Lease: 1, TtlSeconds: 5})
	v2(&pb.V2Request{Path: "/d/x/y", Value: []byte("1"), Lease: 2, TtlSeconds: 9})
	v2(&pb.V2Request{Path: "/k", Value: []byte("1"), Lease: 3, TtlSeconds: 9})
	v2(&pb.V2Request{Path: "/k", Value: []byte("2"), Lease: 4, TtlSeconds: 9}) // instead of 3
	v2(&pb.V2Request{Path: "/k2", Value: []byte("2"), Lease: 5, TtlSeconds: 9})
	v2(&pb.V2Request{Method: pb.V2Request_DELETE, Path: "/k2"})
	if got := fmt.Sprint(m.machine.Leases()); got != "[{1 5 0} {2 9 0} {4 9 0}]" {
		t.Errorf("leases %s", got)
	}
	// A key of v3 on the same lease keeps the lease alive when the node goes.
	m.command(Caller{}, &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("v3"), Lease: 4}})
	v2(&pb.V2Request{Method: pb.V2Request_UPDATE, Path: "/k", Value: []byte("3")})
	before := m.store.Revision()
	if res := m.command(Caller{}, &pb.InternalRaftRequest{LeaseRevoke: &pb.LeaseRevokeRequest{ID: 1}}); res.Err != nil || len(res.Leases) != 2 {
		t.Errorf("end of the directory's lease: %v, leases %v; want itself and that of the node below", res.Err, res.Leases)
	}
	if m.store.Revision() != before+1 {
		t.Errorf("expiry took %d revisions", m.store.Revision()-before)
	}
	if got := fmt.Sprint(m.machine.Leases()); got != "[{4 9 0}]" {
		t.Errorf("leases %s at the end", got)
	}
	if got := m.v2Tree(); got != "/k=\"3\" modified=9 created=5\n" {
		t.Errorf("nodes:\n%s", got)
	}
	if m.machine.V2Expired() != 1 {
		t.Errorf("%d nodes have expired", m.machine.V2Expired())
	}
}
