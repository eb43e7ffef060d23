package state

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// testOptions are the settings of every member in these tests.
var testOptions = Options{MinLeaseTTL: 2, MaxLearners: 1}

// member is a machine over a store in a file of its own.
type member struct {
	t       testing.TB
	path    string
	store   *mvcc.Store
	machine *Machine
	index   uint64
}

func openMember(t testing.TB, path string) *member {
	t.Helper()
	store, err := mvcc.Open(path, mvcc.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	machine, err := New(store, testOptions)
	if err != nil {
		t.Fatal(err)
	}
	m := &member{t: t, path: path, store: store, machine: machine, index: store.Applied().Index}
	t.Cleanup(func() { m.store.Close() })
	return m
}

func newMember(t testing.TB) *member {
	t.Helper()
	return openMember(t, filepath.Join(t.TempDir(), "db"))
}

// restart closes the store, which flushes it, and starts from its file.
func (m *member) restart() {
	m.t.Helper()
	if err := m.store.Close(); err != nil {
		m.t.Fatal(err)
	}
	again := openMember(m.t, m.path)
	m.store, m.machine, m.index = again.store, again.machine, again.index
}

// crashedCopy returns a member that starts from what the file holds now,
// without what was applied and not flushed.
func (m *member) crashedCopy() *member {
	m.t.Helper()
	data, err := os.ReadFile(m.path)
	if err != nil {
		m.t.Fatal(err)
	}
	path := filepath.Join(m.t.TempDir(), "db")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		m.t.Fatal(err)
	}
	return openMember(m.t, path)
}

func (m *member) next() mvcc.Applied {
	m.index++
	return mvcc.Applied{Index: m.index, Term: 1}
}

// apply applies one entry and publishes it.
func (m *member) apply(data []byte) Result {
	res := m.machine.Apply(m.next(), data)
	m.store.Publish()
	return res
}

// command applies one request, on behalf of a caller.
func (m *member) command(c Caller, r *pb.InternalRaftRequest) Result {
	m.t.Helper()
	r.Header = &pb.RequestHeader{ID: m.index + 1, Username: c.User, AuthRevision: c.AuthRevision}
	data, err := r.MarshalVT()
	if err != nil {
		m.t.Fatal(err)
	}
	return m.apply(data)
}

// bucket returns the records of a bucket, one per line.
func (m *member) bucket(b mvcc.Bucket) string {
	m.t.Helper()
	var out strings.Builder
	err := m.store.Load(b, func(k, v []byte) error {
		fmt.Fprintf(&out, "%q = %q\n", k, v)
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return out.String()
}

// otherBuckets are all buckets but that of the keys.
var otherBuckets = []mvcc.Bucket{
	mvcc.BucketMeta, mvcc.BucketLease, mvcc.BucketAlarm, mvcc.BucketAuth, mvcc.BucketAuthUsers,
	mvcc.BucketAuthRoles, mvcc.BucketCluster, mvcc.BucketMembers, mvcc.BucketMembersRemoved,
}

// localMeta are the records of the bucket meta that the store writes when it
// flushes and compacts, at times of its own.
var localMeta = regexp.MustCompile(`(?m)^"(consistent_index|term|finishedCompactRev)" = .*\n`)

// image is all that members which applied the same entries must share.
func (m *member) image() string {
	m.t.Helper()
	var out strings.Builder
	hash, err := m.store.HashKV(0)
	if err != nil {
		m.t.Fatal(err)
	}
	fmt.Fprintf(&out, "revision %d, compacted %d, hash %08x\n", hash.Revision, hash.CompactRevision, hash.Hash)
	for _, b := range otherBuckets {
		fmt.Fprintf(&out, "[%s]\n%s", b, localMeta.ReplaceAllString(m.bucket(b), ""))
	}
	return out.String()
}

// protoSpace are the spaces that prototext adds at random.
var protoSpace = regexp.MustCompile(` +`)

func text(message any) string {
	p, ok := message.(proto.Message)
	if !ok {
		return describeV2(message)
	}
	b, err := prototext.MarshalOptions{}.Marshal(p)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(protoSpace.ReplaceAll(b, []byte(" "))))
}

// describe prints a Result on one line, the effects in angle brackets.
func describe(r Result) string {
	if r.Skipped {
		return "skipped"
	}
	out := []string{r.Op + ":"}
	switch {
	case r.Err != nil:
		out = append(out, "error", r.Err.Error())
	case r.Response != nil:
		out = append(out, text(r.Response))
	}
	if r.CompactTo != 0 {
		out = append(out, fmt.Sprintf("<compact to %d>", r.CompactTo))
	}
	for _, l := range r.Leases {
		out = append(out, fmt.Sprintf("<lease %d %s ttl=%d remaining=%d>", l.Lease.ID, leaseVerbs[l.Kind], l.Lease.TTL, l.Lease.RemainingTTL))
	}
	if t := r.Token; t != nil {
		out = append(out, fmt.Sprintf("<token %s user=%q token=%q>", tokenVerbs[t.Kind], t.User, t.Token))
	}
	if c := r.Member; c != nil {
		out = append(out, fmt.Sprintf("<member %s %s>", memberVerbs[c.Kind], encodeJSON(c.Member)))
	}
	if r.ClusterVersion != "" {
		out = append(out, fmt.Sprintf("<cluster version %s>", r.ClusterVersion))
	}
	if r.Downgrade != nil {
		out = append(out, fmt.Sprintf("<downgrade %s>", encodeJSON(*r.Downgrade)))
	}
	return strings.TrimSpace(strings.Join(out, " "))
}

var (
	leaseVerbs  = map[LeaseChangeKind]string{LeaseGranted: "granted", LeaseRevoked: "revoked", LeaseCheckpointed: "checkpointed"}
	tokenVerbs  = map[TokenChangeKind]string{TokenAssigned: "assigned", UserTokensVoid: "void", EveryTokensVoid: "all void"}
	memberVerbs = map[MemberChangeKind]string{MemberAdded: "added", MemberPromoted: "promoted", MemberUpdated: "updated", MemberPublished: "published", MemberRemoved: "removed"}
)
