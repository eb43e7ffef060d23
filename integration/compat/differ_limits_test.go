package compat

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// alike plays requests on a pair and reports each that is answered differently.
type alike struct {
	*pair
	t *testing.T
	// sameRevisions: the stores have had the same writes.
	sameRevisions bool
}

var revisionLine = regexp.MustCompile(`(?m)^ *[a-z_]*revision: .*\n`)

// ask plays one request and returns etcd's answer.
func (a alike) ask(method string, m proto.Message) string {
	a.t.Helper()
	s := step{method: method, request: encode(m), at: 1}
	var answers [2]string
	for i, p := range a.both() {
		answers[i] = p.play(s, 1)
		if !a.sameRevisions {
			answers[i] = revisionLine.ReplaceAllString(answers[i], "")
		}
	}
	if answers[0] != answers[1] {
		a.t.Errorf("%s of %d bytes\n%s", method, len(s.request), diffLines(answers[0], answers[1]))
	}
	return answers[0]
}

// says plays one request, whose answer must have the text on both.
func (a alike) says(text, method string, m proto.Message) {
	a.t.Helper()
	if got := strings.Join(strings.Fields(a.ask(method, m)), " "); !strings.Contains(got, text) {
		a.t.Errorf("%s: both answer %.300s, want %q", method, got, text)
	}
}

func putOf(size int) *pb.PutRequest {
	return &pb.PutRequest{Key: []byte("k"), Value: bytes.Repeat([]byte("v"), size)}
}

func putsOf(n int) (ops []*pb.RequestOp) {
	for i := range n {
		put := &pb.PutRequest{Key: fmt.Appendf(nil, "k%d", i), Value: []byte("v")}
		ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}})
	}
	return ops
}

func inTxn(n int) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: putsOf(n)}}}
}

// A program that splits its writes by the limits' errors must find them where etcd has them.
func TestDifferentialLimits(t *testing.T) {
	const tooLarge, tooMany = "request is too large", "too many operations in txn request"
	a := alike{newPair(t, "--max-request-bytes", "10000", "--max-txn-ops", "4", "--max-learners", "2"), t, true}
	a.says("revision", kv("Put"), putOf(9900))
	a.says(tooLarge, kv("Put"), putOf(10000))
	a.says(tooLarge, kv("Put"), putOf(500000))
	a.says("received message larger than max", kv("Put"), putOf(600000))
	a.says(tooLarge, kv("Txn"), &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: putOf(10000)}}}})
	a.says(tooLarge, leases("LeaseRevoke"), unknownField(&pb.LeaseRevokeRequest{}, 20000))
	a.says(tooLarge, users("RoleAdd"), &pb.AuthRoleAddRequest{Name: strings.Repeat("r", 20000)})
	a.says("revision", kv("Range"), &pb.RangeRequest{Key: bytes.Repeat([]byte("k"), 20000)})

	a.says("succeeded", kv("Txn"), &pb.TxnRequest{Success: putsOf(4)})
	a.says(tooMany, kv("Txn"), &pb.TxnRequest{Success: putsOf(5)})
	a.says(tooMany, kv("Txn"), &pb.TxnRequest{Failure: putsOf(5)})
	a.says("succeeded", kv("Txn"), &pb.TxnRequest{Success: []*pb.RequestOp{inTxn(3)}})
	a.says(tooMany, kv("Txn"), &pb.TxnRequest{Success: []*pb.RequestOp{inTxn(4)}})
	a.says(tooMany, kv("Txn"), &pb.TxnRequest{Compare: make5()})

	learner := func(port int) *pb.MemberAddRequest {
		return &pb.MemberAddRequest{PeerURLs: []string{fmt.Sprintf("http://127.0.0.1:%d", port)}, IsLearner: true}
	}
	a.says("isLearner", cluster("MemberAdd"), learner(7201))
	a.ask(cluster("MemberAdd"), learner(7201)) // the id exists too, if it is still the same second
	a.says("isLearner", cluster("MemberAdd"), learner(7202))
	a.says("too many learner members", cluster("MemberAdd"), learner(7203))
	a.says("in sync with leader", cluster("MemberPromote"), &pb.MemberPromoteRequest{ID: chosenMember})
	a.says("bad leader transferee", maintenance("MoveLeader"), &pb.MoveLeaderRequest{TargetID: chosenMember})
	a.says("Peer URLs already exists", cluster("MemberUpdate"), &pb.MemberUpdateRequest{ID: chosenMember, PeerURLs: []string{"http://127.0.0.1:7202"}})
	a.says("members", cluster("MemberRemove"), &pb.MemberRemoveRequest{ID: chosenMember})
	a.says("member not found", cluster("MemberRemove"), &pb.MemberRemoveRequest{ID: chosenMember})
	a.says("members", cluster("MemberList"), &pb.MemberListRequest{Linearizable: true})
}

func make5() []*pb.Compare {
	one := &pb.Compare{Key: []byte("k")}
	return []*pb.Compare{one, one, one, one, one}
}

// unknownField puts bytes into a message that no field of it accounts for.
func unknownField(m proto.Message, size int) proto.Message {
	m.ProtoReflect().SetUnknown(append([]byte{0xca, 0x30, 0xa0, 0x9c, 0x01}, make([]byte, size)...)) // field 777, 20000 bytes
	return m
}

// A full store must refuse what etcd's refuses and no more, and come free by the same steps: operators have them written
// down.
func TestDifferentialQuota(t *testing.T) {
	const full, big = "database space exceeded", 100_000
	a := alike{newPair(t, "--quota-backend-bytes", "3000000"), t, false}
	for _, p := range a.both() {
		filled := false
		for range 100 {
			if strings.Contains(p.play(step{method: kv("Put"), request: encode(putOf(big)), at: 1}, 1), full) {
				filled = true
				break
			}
		}
		if !filled {
			t.Fatalf("%s takes more than its quota", p.name)
		}
	}
	alarm := func(action pb.AlarmRequest_AlarmAction, member uint64) *pb.AlarmRequest {
		return &pb.AlarmRequest{Action: action, Alarm: pb.AlarmType_NOSPACE, MemberID: member}
	}
	for _, p := range a.both() {
		list := step{method: maintenance("Alarm"), request: encode(alarm(pb.AlarmRequest_GET, 0)), at: 1}
		if !poll(watchMax, func() bool { return strings.Contains(p.play(list, 1), "NOSPACE") }) {
			t.Fatalf("%s raises no alarm", p.name)
		}
	}
	a.says("NOSPACE", maintenance("Alarm"), alarm(pb.AlarmRequest_GET, 0))
	a.says("alarm:NOSPACE", maintenance("Status"), &pb.StatusRequest{})
	a.says(full, kv("Put"), putOf(1))
	a.says(full, leases("LeaseGrant"), &pb.LeaseGrantRequest{ID: 7, TTL: 100})
	a.says(full, kv("Txn"), &pb.TxnRequest{Success: putsOf(1)})
	a.says(full, kv("Txn"), &pb.TxnRequest{Failure: putsOf(1)})
	// Small requests that are wrong as well, and large ones.
	a.ask(kv("Put"), &pb.PutRequest{Key: []byte("k"), Lease: 99})
	a.ask(kv("Put"), putOf(big))
	a.ask(kv("Put"), &pb.PutRequest{Value: putOf(big).Value})
	a.ask(kv("Put"), &pb.PutRequest{Key: []byte("none"), IgnoreValue: true})
	twice := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: putOf(big)}}
	a.ask(kv("Txn"), &pb.TxnRequest{Success: []*pb.RequestOp{twice, twice}})
	a.ask(kv("Txn"), &pb.TxnRequest{Success: []*pb.RequestOp{{}}})
	a.ask(leases("LeaseGrant"), &pb.LeaseGrantRequest{ID: 7, TTL: 9000000001})
	a.says("message", kv("Txn"), &pb.TxnRequest{})
	a.says("count", kv("Range"), &pb.RangeRequest{Key: []byte("k"), CountOnly: true})
	a.says("deleted: 1", kv("DeleteRange"), &pb.DeleteRangeRequest{Key: []byte("k")})
	a.says("requested lease not found", leases("LeaseRevoke"), &pb.LeaseRevokeRequest{ID: 7})
	for _, p := range a.both() {
		compact := &pb.CompactionRequest{Revision: p.revision, Physical: true}
		if got := p.play(step{method: kv("Compact"), request: encode(compact), at: p.revision}, p.revision); !strings.Contains(got, "header") {
			t.Errorf("%s: compact: %s", p.name, got)
		}
	}
	a.ask(maintenance("Defragment"), &pb.DefragmentRequest{})
	a.says(full, kv("Put"), putOf(1)) // until the alarm is disarmed
	member := alarmMember(t, a.etcd)
	a.says("alarms", maintenance("Alarm"), alarm(pb.AlarmRequest_DEACTIVATE, member))
	a.ask(maintenance("Alarm"), alarm(pb.AlarmRequest_DEACTIVATE, member))
	a.says("header", kv("Put"), putOf(big))
	a.says("dbSizeQuota", maintenance("Status"), &pb.StatusRequest{})
}

func alarmMember(t *testing.T, p *player) uint64 {
	t.Helper()
	request, answer := encode(&pb.AlarmRequest{}), []byte(nil)
	if err := p.conn.Invoke(p.ctx, maintenance("Alarm"), &request, &answer); err != nil {
		t.Fatal(err)
	}
	all := &pb.AlarmResponse{}
	if err := proto.Unmarshal(answer, all); err != nil || len(all.Alarms) != 1 {
		t.Fatalf("alarms %v, %v", all, err)
	}
	return all.Alarms[0].MemberID
}

// A watcher whose connection takes only so much at a time asks for fragments; they must be cut where etcd cuts them.
func TestDifferentialFragments(t *testing.T) {
	p := newPair(t, "--max-request-bytes", "1500000")
	var cuts [2]string
	for i, player := range p.both() {
		ctx, cancel := context.WithTimeout(player.ctx, waitMax)
		defer cancel()
		stream, err := player.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, watchMethod)
		if err != nil {
			t.Fatal(err)
		}
		create := &pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), Fragment: true, PrevKv: true}
		request := encode(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}})
		if err := stream.SendMsg(&request); err != nil {
			t.Fatal(err)
		}
		readWatch(t, stream) // created
		for range 2 {
			txn := &pb.TxnRequest{}
			for n := range 14 {
				put := &pb.PutRequest{Key: fmt.Appendf(nil, "k%02d", n), Value: bytes.Repeat([]byte("v"), 100_000)}
				txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}})
			}
			if got := player.play(step{method: kv("Txn"), request: encode(txn), at: 1}, 1); !strings.Contains(got, "succeeded") {
				t.Fatalf("%s: %.300s", player.name, got)
			}
		}
		for events := 0; events < 28; {
			answer := readWatch(t, stream)
			events += len(answer.Events)
			cuts[i] += fmt.Sprintf("%d events at %d, more to come: %t\n", len(answer.Events), answer.Header.Revision, answer.Fragment)
		}
	}
	if cuts[0] != cuts[1] {
		t.Error(diffLines(cuts[0], cuts[1]))
	}
	if !strings.Contains(cuts[0], "true") {
		t.Errorf("etcd sent no fragment:\n%s", cuts[0])
	}
}

func readWatch(t *testing.T, stream grpc.ClientStream) *pb.WatchResponse {
	t.Helper()
	var data []byte
	if err := stream.RecvMsg(&data); err != nil {
		t.Fatal(err)
	}
	answer := &pb.WatchResponse{}
	if err := proto.Unmarshal(data, answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

// Who may do what is decided by every member on its own: one that made other permissions of the same grants than the etcd
// beside it would let in whom that one refuses.
func TestDifferentialPermissions(t *testing.T) {
	seed := differSeed(t)
	t.Logf("seed %d; replay: KVORUM_SEED=%d go test -run '%s'", seed, seed, t.Name())
	d := newDraw(seed, false)
	a := alike{newPair(t), t, true}
	a.says("header", users("RoleAdd"), &pb.AuthRoleAddRequest{Name: "r"})
	for range 150 {
		key, end := []byte(pick(d, "a", "b", "bb")), []byte(pick(d, "", "c", "d", "\x00"))
		if d.oneIn(3) {
			a.ask(users("RoleRevokePermission"), &pb.AuthRoleRevokePermissionRequest{Role: "r", Key: key, RangeEnd: end})
		} else {
			perm := &authpb.Permission{PermType: authpb.Permission_Type(d.IntN(3)), Key: key, RangeEnd: end}
			a.ask(users("RoleGrantPermission"), &pb.AuthRoleGrantPermissionRequest{Name: "r", Perm: perm})
		}
		a.says("header", users("RoleGet"), &pb.AuthRoleGetRequest{Role: "r"})
		a.says("authRevision", users("AuthStatus"), &pb.AuthStatusRequest{})
		if t.Failed() {
			return
		}
	}
}
