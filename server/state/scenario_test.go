package state

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/encoding/prototext"

	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// If this fails, some command does something else than the scenario of that
// name in testdata promises: another answer, another error text that clients
// no longer recognise, or other bytes in the database.
//
//	apply [user=name] [rev=n]  one InternalRaftRequest per line, as protobuf text
//	raw                        one entry per line, in hex ("-": empty)
//	conf                       one membership change per line: kind id [context]
//	replay index=n             one request, as an entry of that index
//	check user=name rev=n      the permission of one request per line, when asked
//	bucket name=b              the records of a bucket
//	read                       one reader per line
//	keys                       all keys at the current revision
//	v2tree                     all v2 nodes, hidden ones left out
//	restart                    start again from the file; prints what differs
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		m := newMember(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			m.t = t
			return m.run(t, d)
		})
	})
}

func (m *member) run(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "apply":
		return perLine(d, func(line string) string { return describe(m.command(m.caller(t, d), parse(t, line))) })
	case "raw":
		return perLine(d, func(line string) string { return describe(m.apply(parseHex(t, line))) })
	case "conf":
		return perLine(d, func(line string) string { return m.conf(t, line) })
	case "replay":
		var index uint64
		d.ScanArgs(t, "index", &index)
		data, err := parse(t, d.Input).MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		return describe(m.machine.Apply(mvcc.Applied{Index: index, Term: 1}, data)) + "\n"
	case "check":
		return perLine(d, func(line string) string { return m.check(m.caller(t, d), parse(t, line)) })
	case "bucket":
		var name string
		d.ScanArgs(t, "name", &name)
		return m.bucket(mvcc.Bucket(name))
	case "read":
		return perLine(d, func(line string) string { return m.read(t, line) })
	case "keys":
		resp, err := m.store.Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(text(resp), " kvs:", "\nkvs:") + "\n"
	case "v2tree":
		return m.v2Tree()
	case "restart":
		before := m.image() + m.memory()
		m.restart()
		if after := m.image() + m.memory(); after != before {
			return fmt.Sprintf("before:\n%safter:\n%s", before, after)
		}
		return "same\n"
	}
	t.Fatalf("unknown command %q", d.Cmd)
	return ""
}

func perLine(d *datadriven.TestData, f func(string) string) string {
	var out strings.Builder
	for line := range strings.Lines(d.Input) {
		out.WriteString(f(strings.TrimSpace(line)) + "\n")
	}
	return out.String()
}

func parse(t *testing.T, line string) *pb.InternalRaftRequest {
	t.Helper()
	r := &pb.InternalRaftRequest{}
	if err := prototext.Unmarshal([]byte(line), r); err != nil {
		t.Fatal(err)
	}
	return r
}

func parseHex(t *testing.T, line string) []byte {
	t.Helper()
	if line == "-" {
		return nil
	}
	b, err := hex.DecodeString(line)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// caller reads who asks; without rev it is the current auth revision.
func (m *member) caller(t *testing.T, d *datadriven.TestData) Caller {
	var c Caller
	if d.HasArg("user") {
		d.ScanArgs(t, "user", &c.User)
		c.AuthRevision = m.machine.AuthStatus().Revision
	}
	if d.HasArg("rev") {
		d.ScanArgs(t, "rev", &c.AuthRevision)
	}
	return c
}

var confKinds = map[string]ConfChangeKind{"add": AddNode, "remove": RemoveNode, "update": UpdateNode, "add-learner": AddLearnerNode}

func (m *member) conf(t *testing.T, line string) string {
	fields := strings.SplitN(line, " ", 3)
	kind, ok := confKinds[fields[0]]
	if !ok {
		t.Fatalf("unknown kind of membership change %q", fields[0])
	}
	id, err := strconv.ParseUint(fields[1], 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	cc := ConfChange{ID: m.index + 1, Kind: kind, Member: MemberID(id)}
	if len(fields) == 3 {
		cc.Context = []byte(fields[2])
	}
	res := m.machine.ApplyConfChange(m.next(), cc)
	m.store.Publish()
	return describe(res)
}

// check asks for permission as the api does before it proposes or reads.
func (m *member) check(c Caller, r *pb.InternalRaftRequest) string {
	var err error
	switch {
	case r.Range != nil:
		err = m.machine.CheckRange(c, r.Range)
	case r.Put != nil:
		err = m.machine.CheckPut(c, r.Put)
	case r.DeleteRange != nil:
		err = m.machine.CheckDeleteRange(c, r.DeleteRange)
	case r.Txn != nil:
		err = m.machine.CheckTxn(c, r.Txn)
	case r.LeaseRevoke != nil:
		err = m.machine.CheckLeaseRevoke(c, mvcc.LeaseID(r.LeaseRevoke.ID))
	case r.LeaseGrant != nil:
		err = m.machine.CheckLeaseRead(c, mvcc.LeaseID(r.LeaseGrant.ID))
	case r.AuthUserGet != nil:
		err = m.machine.CheckUserGet(c, r.AuthUserGet.Name)
	case r.AuthRoleGet != nil:
		err = m.machine.CheckRoleGet(c, r.AuthRoleGet.Role)
	case r.AuthStatus != nil:
		err = m.machine.CheckUser(c)
	default:
		err = m.machine.CheckRoot(c)
	}
	if err != nil {
		return "error " + err.Error()
	}
	return "allowed"
}

// memory is all that the readers of the machine say.
func (m *member) memory() string {
	var out strings.Builder
	for _, what := range []string{"members", "removed", "conf state", "versions", "leases", "alarms", "auth", "users", "roles"} {
		fmt.Fprintf(&out, "%s: %s\n", what, m.read(m.t, what))
	}
	return out.String()
}

func (m *member) read(t testing.TB, what string) string {
	k := m.machine
	fields := strings.Fields(what)
	switch fields[0] {
	case "members":
		return string(encodeJSON(k.Members()))
	case "removed":
		return fmt.Sprintf("%x", k.RemovedMembers())
	case "conf":
		return fmt.Sprintf("voters %x learners %x", k.ConfState().Voters, k.ConfState().Learners)
	case "versions":
		return fmt.Sprintf("cluster %q storage %q downgrade %s", k.ClusterVersion(), k.StorageVersion(), encodeJSON(k.Downgrade()))
	case "leases":
		return fmt.Sprintf("%d: %v", k.LeaseCount(), k.Leases())
	case "alarms":
		return text(&pb.AlarmResponse{Alarms: k.Alarms(pb.AlarmType_NONE)})
	case "auth":
		return fmt.Sprintf("%+v", k.AuthStatus())
	case "users":
		var out []string
		for _, name := range k.Users() {
			roles, err := k.User(name)
			out = append(out, fmt.Sprintf("%q %q %v", name, roles, err))
		}
		return strings.Join(out, ", ")
	case "roles":
		var out []string
		for _, name := range k.Roles() {
			permissions, err := k.Role(name)
			out = append(out, text(&pb.AuthRoleGetResponse{Perm: permissions}), fmt.Sprintf("%q %v", name, err))
		}
		return strings.Join(out, ", ")
	case "hash":
		hash, revision, err := k.PasswordHash(fields[1])
		return fmt.Sprintf("%q at auth revision %d, %v", hash, revision, err)
	case "applied":
		return fmt.Sprintf("%+v", m.store.Applied())
	}
	t.Fatalf("unknown reader %q", what)
	return ""
}
