package compat

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/integration/compat/process"
)

// Operators and Kubernetes read the status of every member; a wrong leader or version sends them the wrong way.
func TestStatus(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		e.put("k", "v")
		members, err := e.MemberList(e.ctx)
		if err != nil || len(members.Members) != len(e.cluster.Members) || members.Header.Revision != 0 {
			t.Fatalf("members: %v, %v", members, err)
		}
		leaders := map[uint64]bool{}
		for _, m := range members.Members {
			status, err := e.Status(e.ctx, m.ClientURLs[0])
			if err != nil {
				t.Fatal(err)
			}
			leaders[status.Leader] = true
			if status.Header.MemberId != m.ID || status.Header.ClusterId != members.Header.ClusterId {
				t.Errorf("%s answers as member %x of cluster %x", m.Name, status.Header.MemberId, status.Header.ClusterId)
			}
			if !strings.HasPrefix(status.Version, "3.7.") || status.StorageVersion != "3.7.0" {
				t.Errorf("%s: version %q storage %q", m.Name, status.Version, status.StorageVersion)
			}
			if status.DbSize < status.DbSizeInUse || status.DbSizeInUse == 0 || status.RaftTerm == 0 || status.IsLearner ||
				status.RaftAppliedIndex > status.RaftIndex || status.DbSizeQuota != 2<<30 || len(status.Errors) != 0 {
				t.Errorf("%s: %v", m.Name, status)
			}
		}
		if len(leaders) != 1 || leaders[0] {
			t.Errorf("leaders %v, want one", leaders)
		}
	})
}

// Equal hashes are how operators know that no member has gone astray.
func TestHashKVEqualOnAllMembers(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		old := e.history()
		rev := e.put("last", "v")
		hashes := map[string]bool{}
		for _, m := range e.cluster.Members {
			if _, err := newClient(t, m.Endpoint()).Get(e.ctx, e.key("last")); err != nil {
				t.Fatal(err)
			}
			now, err := e.HashKV(e.ctx, m.ClientURL, rev)
			if err != nil {
				t.Fatal(err)
			}
			before, err := e.HashKV(e.ctx, m.ClientURL, old)
			if err != nil {
				t.Fatal(err)
			}
			if now.HashRevision != rev || before.HashRevision != old || now.Hash == before.Hash {
				t.Errorf("%s: at %d %v, at %d %v", m.Name, rev, now, old, before)
			}
			hashes[fmt.Sprint(now.Hash, before.Hash)] = true
		}
		if len(hashes) != 1 {
			t.Errorf("hashes differ between members: %v", hashes)
		}
		_, err := e.HashKV(e.ctx, e.cluster.Members[0].ClientURL, 1<<40)
		wantError(t, err, futureRevision)
	})
}

// The same history must have the same hash in Kvorum as in etcd, or a mixed cluster would report corruption.
func TestHashKVEqualsEtcds(t *testing.T) {
	hashes := map[string]string{}
	for name, binary := range map[string]string{"target": targetBinary(t), "etcd": etcdBinary(t)} {
		// At a compaction's own revision etcd answers with the hash that it took before it deleted; Kvorum takes that
		// hash only when it is to be compared.
		args := []string{"--feature-gates=CompactHashCheck=true"}
		e := newEnv(t, startCluster(t, process.Options{Binary: binary, Size: 1, Args: args}))
		e.prefix = "same/"
		first := e.history()
		if _, err := e.Compact(e.ctx, first+2, clientv3.WithCompactPhysical()); err != nil {
			t.Fatal(err)
		}
		e.put("a", "again")
		rev := e.put("z", strings.Repeat("z", 5000))
		for at := first + 2; at <= rev; at++ {
			got, err := e.HashKV(e.ctx, e.cluster.Members[0].ClientURL, at)
			if err != nil {
				t.Fatal(err)
			}
			hashes[name] += fmt.Sprintf("%d: %08x at %d compacted %d\n", at, got.Hash, got.HashRevision, got.CompactRevision)
		}
	}
	if hashes["target"] != hashes["etcd"] {
		t.Errorf("target:\n%setcd:\n%s", hashes["target"], hashes["etcd"])
	}
}

// A backup must be whole: its last 32 bytes are the hash of all before them.
func TestSnapshotStream(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		e = e.on(0)
		e.put("k", strings.Repeat("v", 100000))
		snapshot, err := e.SnapshotWithVersion(e.ctx)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(snapshot.Snapshot)
		if err != nil {
			t.Fatal(err)
		}
		body := len(data) - sha256.Size
		if snapshot.Version != "3.7.0" || body < 100000 || body%512 != 0 {
			t.Errorf("version %q, %d bytes", snapshot.Version, len(data))
		}
		if sum := sha256.Sum256(data[:body]); !bytes.Equal(sum[:], data[body:]) {
			t.Error("the hash at the end is not that of the bytes before it")
		}
	})
}

// Defragmenting must keep every key and give space back.
func TestDefragment(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		value := strings.Repeat("v", 500<<10)
		for range 20 {
			e.put("big", value)
		}
		rev := e.put("k", "v")
		if _, err := e.Compact(e.ctx, rev, clientv3.WithCompactPhysical()); err != nil {
			t.Fatal(err)
		}
		for _, m := range e.cluster.Members {
			before, err := e.Status(e.ctx, m.ClientURL)
			if err != nil {
				t.Fatal(err)
			}
			e.shrink(m, before.DbSize)
		}
		if string(e.get("big").Kvs[0].Value) != value {
			t.Error("the value changed")
		}
	})
}

// shrink defragments a member until it has become smaller: the compaction may still be at work there.
func (e *env) shrink(m *process.Member, size int64) {
	e.t.Helper()
	for {
		if _, err := e.Defragment(e.ctx, m.ClientURL); err != nil {
			e.t.Fatalf("%s has not become smaller than %d bytes: %v", m.Name, size, err)
		}
		after, err := e.Status(e.ctx, m.ClientURL)
		if err != nil {
			e.t.Fatalf("%s has not become smaller than %d bytes: %v", m.Name, size, err)
		}
		if after.DbSize < size {
			return
		}
	}
}

// A full store must refuse writes, say why, let the operator make room, and then take writes again.
func TestSpaceAlarm(t *testing.T) {
	c := startCluster(t, process.Options{
		Binary: targetBinary(t), Size: 1, Args: []string{"--quota-backend-bytes", fmt.Sprint(4 << 20)},
	})
	e := newEnv(t, c)
	noSpace := wireError{code: 8, text: "etcdserver: mvcc: database space exceeded", is: errNoSpace}
	var err error
	for i := 0; err == nil && i < 100; i++ {
		_, err = e.Put(e.ctx, e.key("k"), strings.Repeat("v", 256<<10))
	}
	wantError(t, err, noSpace)
	_, err = e.Grant(e.ctx, 60)
	wantError(t, err, noSpace)
	alarms, err := e.AlarmList(e.ctx)
	if err != nil || len(alarms.Alarms) != 1 || alarms.Alarms[0].Alarm != pb.AlarmType_NOSPACE {
		t.Fatalf("alarms %v, %v", alarms, err)
	}
	if code, body := httpGet(t, c.Members[0].ClientURL+"/health"); code != http.StatusServiceUnavailable ||
		!strings.Contains(body, "ALARM NOSPACE") {
		t.Errorf("health %d %s", code, body)
	}
	status, err := e.Status(e.ctx, c.Members[0].ClientURL)
	if err != nil || len(status.Errors) != 1 || !strings.Contains(status.Errors[0], "NOSPACE") {
		t.Errorf("status %v, %v", status, err)
	}
	rev := e.get("k").Header.Revision
	if _, err := e.Delete(e.ctx, e.key("k")); err != nil {
		t.Errorf("delete while full: %v", err)
	}
	if _, err := e.Compact(e.ctx, rev, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Defragment(e.ctx, c.Members[0].ClientURL); err != nil {
		t.Fatal(err)
	}
	gone, err := e.AlarmDisarm(e.ctx, &clientv3.AlarmMember{})
	if err != nil || len(gone.Alarms) != 1 {
		t.Fatalf("disarm: %v, %v", gone, err)
	}
	e.put("k", "v")
	if code, body := httpGet(t, c.Members[0].ClientURL+"/health"); code != http.StatusOK {
		t.Errorf("health afterwards %d %s", code, body)
	}
}

func httpGet(t *testing.T, url string) (int, string) {
	t.Helper()
	answer, err := http.Get(url) //nolint:noctx,gosec // a loopback address of our own
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// Load balancers and monitors ask these pages without any client.
func TestHTTP(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		if e.proxied {
			t.Skip("pages of members, which a proxy does not have")
		}
		for _, m := range e.cluster.Members {
			if code, body := httpGet(t, m.ClientURL+"/health"); code != 200 || body != `{"health":"true","reason":""}` {
				t.Errorf("%s /health: %d %s", m.Name, code, body)
			}
			if code, body := httpGet(t, m.ClientURL+"/version"); code != 200 || !strings.HasPrefix(body, `{"etcdserver":"3.7.`) ||
				!strings.HasSuffix(body, `"etcdcluster":"3.7.0","storage":"3.7.0"}`) {
				t.Errorf("%s /version: %d %s", m.Name, code, body)
			}
			for _, page := range []string{"/livez", "/readyz"} {
				if code, body := httpGet(t, m.ClientURL+page); code != 200 || body != "ok\n" {
					t.Errorf("%s %s: %d %q", m.Name, page, code, body)
				}
			}
			if code, body := httpGet(t, m.ClientURL+"/metrics"); code != 200 || !strings.Contains(body, "etcd_server_has_leader 1") {
				t.Errorf("%s /metrics: %d, no etcd_server_has_leader 1", m.Name, code)
			}
		}
	})
}

// Maintenance of a leader starts with moving leadership away.
func TestMoveLeader(t *testing.T) {
	c := startCluster(t, process.Options{Binary: targetBinary(t), Size: 3})
	e := newEnv(t, c)
	ids, leader := map[uint64]*process.Member{}, uint64(0)
	for _, m := range c.Members {
		status, err := e.Status(e.ctx, m.ClientURL)
		if err != nil {
			t.Fatal(err)
		}
		ids[status.Header.MemberId], leader = m, status.Leader
	}
	var target uint64
	for id := range ids {
		if id != leader {
			target = id
		}
	}
	_, err := newClient(t, ids[target].Endpoint()).MoveLeader(e.ctx, target)
	wantError(t, err, notLeader)
	atLeader := newClient(t, ids[leader].Endpoint())
	_, err = atLeader.MoveLeader(e.ctx, 4242)
	wantError(t, err, badTransferee)
	if _, err := atLeader.MoveLeader(e.ctx, target); err != nil {
		t.Fatal(err)
	}
	status, err := e.Status(e.ctx, ids[leader].ClientURL)
	if err != nil || status.Leader != target {
		t.Errorf("the leader is %x, want %x, %v", status.Leader, target, err)
	}
	e.put("k", "v")
}
