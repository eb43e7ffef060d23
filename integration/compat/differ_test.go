package compat

import (
	"flag"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

var keepGoing = flag.Bool("keep-going", false, "the differential tests report every difference and go on, without shrinking")

// A program that was written for etcd may rely on anything that etcd answers, down to the text of an error. Kvorum must
// answer the same to the same thousands of requests, good, bad and absurd.
func TestDifferential(t *testing.T) {
	for _, world := range []struct {
		name  string
		auth  bool
		steps int
	}{{"keys", false, 1500}, {"users", true, 1500}} {
		t.Run(world.name, func(t *testing.T) {
			seed, steps := differSeed(t), world.steps
			if os.Getenv("KVORUM_LONG") != "" {
				steps *= 20
			}
			t.Logf("seed %d; replay: KVORUM_SEED=%d go test -run '%s'", seed, seed, t.Name())
			differ(t, newDraw(seed, world.auth), steps)
		})
	}
}

// differSeed is a random seed, or the one that KVORUM_SEED names.
func differSeed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("KVORUM_SEED")
	if text == "" {
		return rand.Uint64() >> 32
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("KVORUM_SEED: %v", err)
	}
	return seed
}

// differ plays random steps on a pair, and explains the first difference by a list of steps that is as short as it finds.
func differ(t *testing.T, d *draw, steps int) {
	t.Helper()
	p := newPair(t)
	var setup []step
	if d.auth {
		setup = authSetup()
	}
	if found := p.replay(setup); found != nil {
		t.Fatalf("while users are made: %s", found)
	}
	var played []step
	draw := func(revision int64, _ int) (step, bool) {
		if len(played) == steps {
			return step{}, false
		}
		s := d.next(revision)
		played = append(played, s)
		return s, true
	}
	found := p.run(draw)
	for *keepGoing && found != nil {
		t.Errorf("after %d steps: %s", len(played), found)
		p.etcd.tapes, p.kvorum.tapes = map[int]*tape{}, map[int]*tape{}
		found = p.run(draw)
	}
	if found == nil {
		t.Logf("%d requests were answered alike", len(played))
		return
	}
	t.Errorf("after %d steps: %s", len(played), found)
	p.stop()
	short, found := shrink(t, p, setup, played, found)
	t.Errorf("shortest list found, after the setup:\n%sends in: %s", describe(short), found)
}

// authSetup makes users and roles, turns authentication on and logs all in.
func authSetup() []step {
	var steps []step
	add := func(method string, m proto.Message) {
		steps = append(steps, step{method: users(method), request: encode(m), as: "root", at: 1})
	}
	for _, name := range []string{"root", "alice", "bob", "carol"} {
		add("UserAdd", &pb.AuthUserAddRequest{Name: name, Password: name + "-secret"})
	}
	add("UserAdd", &pb.AuthUserAddRequest{Name: "nopassword", Options: &authpb.UserAddOptions{NoPassword: true}})
	for _, role := range []string{"root", "r1", "r2"} {
		add("RoleAdd", &pb.AuthRoleAddRequest{Name: role})
	}
	grant := func(role string, kind authpb.Permission_Type, key, end string) {
		add("RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{
			Name: role, Perm: &authpb.Permission{PermType: kind, Key: []byte(key), RangeEnd: []byte(end)}})
	}
	grant("r1", authpb.READWRITE, "a", "b")
	grant("r1", authpb.READ, "b", "c")
	grant("r2", authpb.WRITE, "b", "\x00")
	for _, grant := range [][2]string{{"root", "root"}, {"alice", "r1"}, {"bob", "r2"}} {
		add("UserGrantRole", &pb.AuthUserGrantRoleRequest{User: grant[0], Role: grant[1]})
	}
	add("AuthEnable", &pb.AuthEnableRequest{})
	for _, name := range []string{"root", "alice", "bob", "carol"} {
		add("Authenticate", &pb.AuthenticateRequest{Name: name, Password: name + "-secret"})
	}
	return steps
}
