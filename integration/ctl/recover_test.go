package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/internal/process"
)

func connect(t *testing.T, endpoints ...string) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{Endpoints: endpoints})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// limited is a context for one step of a test.
func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitMax)
	t.Cleanup(cancel)
	return ctx
}

// putMany writes n acknowledged keys and returns the last revision.
func putMany(t *testing.T, endpoints []string, prefix string, n int) (rev int64) {
	t.Helper()
	c, ctx := connect(t, endpoints...), limited(t)
	for i := range n {
		r, err := c.Put(ctx, fmt.Sprintf("%s%06d", prefix, i), fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		rev = r.Header.GetRevision()
	}
	return rev
}

// wantMany fails unless all keys of putMany are there.
func wantMany(t *testing.T, endpoint, prefix string, n int) (rev int64) {
	t.Helper()
	r, err := connect(t, endpoint).Get(limited(t), prefix, client.Prefix())
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Kvs) != n {
		t.Fatalf("%s has %d of %d keys that were acknowledged", endpoint, len(r.Kvs), n)
	}
	for i, kv := range r.Kvs {
		if string(kv.Key) != fmt.Sprintf("%s%06d", prefix, i) || string(kv.Value) != fmt.Sprint(i) {
			t.Fatalf("%s: key %d is %s=%s", endpoint, i, kv.Key, kv.Value)
		}
	}
	return r.Header.GetRevision()
}

// oldWatcher is a client that keeps a cache, as those of Kubernetes do: it goes
// on from the revision that it knows.
func wantOldWatcherCancelled(t *testing.T, c *client.Client, from int64) {
	t.Helper()
	w := c.Watch(limited(t), "many/", client.Prefix(), client.Revision(from))
	for {
		_, err := w.Next()
		if errors.Is(err, client.ErrCompacted) {
			return
		}
		if err != nil {
			t.Fatalf("a watcher from revision %d of the old cluster got %v", from, err)
		}
	}
}

// If this fails, clients of a cluster that was restored from a snapshot keep
// what they have cached for the truth, or see revisions go backwards.
func TestRestoreIsSafeByDefault(t *testing.T) {
	t.Parallel()
	c := start(t, process.Options{Size: 1})
	m := c.Members[0]
	putMany(t, c.Endpoints(), "many/", 20)
	file := filepath.Join(t.TempDir(), "backup.db")
	kvctl(t, c.Endpoints(), "snapshot", "save", file)
	cache := connect(t, c.Endpoints()...)
	seen := putMany(t, c.Endpoints(), "lost/", 20) // after the backup: clients have seen more than it holds
	m.Kill()
	m.Dir += ".restored"
	m.Args = append(m.Args, "--data-dir", m.Dir)
	if _, err := try(nil, "snapshot", "restore", file, "--data-dir", m.Dir, "--name", m.Name, "--initial-cluster", c.InitialCluster(),
		"--initial-advertise-peer-urls", m.PeerURL, "--initial-cluster-token", process.DefaultToken); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	wantOldWatcherCancelled(t, cache, seen+1)
	wantOldWatcherCancelled(t, cache, 3)
	if rev := wantMany(t, m.Endpoint(), "many/", 20); rev <= seen {
		t.Errorf("the restored cluster is at revision %d, clients have seen %d", rev, seen)
	}
	if rev := putMany(t, c.Endpoints(), "new/", 1); rev <= seen {
		t.Errorf("a write got revision %d, clients have seen %d", rev, seen)
	}
}

// recovered is what `recover -w json` prints.
type recovered struct {
	Self     struct{ ID uint64 }
	Learners []struct {
		ID       uint64
		Name     string
		PeerURLs []string
	}
	Revision int64
}

// restartAsNew gives a member an empty folder and the flags of one that joins.
func restartAsNew(t *testing.T, m *process.Member, cluster string) {
	t.Helper()
	m.Dir += ".new"
	m.Args = append(m.Args, "--data-dir", m.Dir, "--initial-cluster-state", "existing", "--initial-cluster", cluster)
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
}

// wantEqualHashes waits until all members have the same data.
func wantEqualHashes(t *testing.T, members []*process.Member) {
	t.Helper()
	eventually(t, "equal hashes", func() error {
		hash := map[string]bool{}
		for _, m := range members {
			out, err := try([]string{m.Endpoint()}, "endpoint", "hashkv")
			if err != nil {
				return err
			}
			_, rest, _ := strings.Cut(out, ",")
			hash[rest] = true
		}
		if len(hash) != 1 {
			return fmt.Errorf("hashes %v", hash)
		}
		return nil
	})
}

// If this fails, a cluster that has lost its quorum for good cannot be rebuilt
// with one command, or loses writes that a survivor has.
func TestRecoverThreeMembers(t *testing.T) {
	t.Parallel()
	recoverCluster(t, 3, 1000)
}

// If this fails, of two survivors the worse one may become the new cluster.
func TestRecoverFiveMembers(t *testing.T) {
	t.Parallel()
	recoverCluster(t, 5, 500)
}

// recoverCluster kills a cluster, throws the data of a quorum away and rebuilds
// it from the others.
func recoverCluster(t *testing.T, size, keys int) {
	c := start(t, process.Options{Size: size})
	all := c.InitialCluster()
	survivors, lost := c.Members[:size/2], c.Members[size/2:]
	if len(survivors) > 1 { // one of them misses the end
		putMany(t, []string{c.Members[0].Endpoint()}, "early/", 10)
		survivors[0].Kill()
		writesGoOn(t, lost[0])
	}
	seen := putMany(t, []string{lost[0].Endpoint()}, "many/", keys)
	best := survivors[len(survivors)-1]
	eventually(t, "the survivor has all", func() error {
		r, err := connect(t, best.Endpoint()).Get(limited(t), "many/", client.Prefix(), client.CountOnly(), client.Serializable())
		if err == nil && r.Count != int64(keys) {
			err = fmt.Errorf("it has %d keys", r.Count)
		}
		return err
	})
	names := []string{}
	for _, m := range lost {
		names = append(names, m.Name)
	}
	args := []string{"recover", "--lost", strings.Join(names, ","), "-w", "json"}
	for _, m := range survivors {
		args = append(args, "--data-dir", m.Dir)
	}
	if _, err := try(nil, args...); err == nil || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("recover on a running member: %v", err)
	}
	for _, m := range survivors {
		m.Kill()
	}
	if _, err := try(nil, args...); err == nil || !strings.Contains(err.Error(), "is alive") {
		t.Errorf("recover while others run: %v", err)
	}
	c.Stop()
	for _, m := range lost {
		if err := os.RemoveAll(m.Dir); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	var r recovered
	if err := json.Unmarshal([]byte(kvctl(t, nil, args...)), &r); err != nil {
		t.Fatal(err)
	}
	offline := time.Since(began)
	if err := best.Start(); err != nil {
		t.Fatal(err)
	}
	if rev := putMany(t, []string{best.Endpoint()}, "after/", 1); rev <= seen {
		t.Errorf("a write got revision %d, clients have seen %d", rev, seen)
	}
	serving := time.Since(began)
	wantOldWatcherCancelled(t, connect(t, best.Endpoint()), seen+1)
	rejoinAll(t, c, best, r, all)
	whole := time.Since(began)
	wantMany(t, best.Endpoint(), "many/", keys)
	wantEqualHashes(t, c.Members)
	best.Kill() // the others are a quorum now
	writesGoOn(t, lost[len(lost)-1])
	wantMany(t, lost[0].Endpoint(), "many/", keys)
	t.Logf("%d members, %d keys: recover took %s, writes after %s, all members vote after %s", size, keys, offline, serving, whole)
}

// writesGoOn waits for the leader that follows a dead one.
func writesGoOn(t *testing.T, m *process.Member) {
	t.Helper()
	eventually(t, "a write by "+m.Name, func() error {
		_, err := try([]string{m.Endpoint()}, "put", "last", "1")
		return err
	})
}

// rejoinAll starts the learners of a recovered cluster and waits for their votes.
func rejoinAll(t *testing.T, c *process.Cluster, best *process.Member, r recovered, all string) {
	t.Helper()
	if len(r.Learners) != len(c.Members)-1 {
		t.Fatalf("the learners are %+v", r.Learners)
	}
	for _, m := range c.Members {
		if m != best {
			restartAsNew(t, m, all)
		}
	}
	for _, l := range r.Learners {
		kvctl(t, []string{best.Endpoint()}, "member", "rejoin", fmt.Sprintf("%x", l.ID), "--wait")
	}
	if out := kvctl(t, []string{best.Endpoint()}, "member", "list"); strings.Contains(out, "true") || strings.Count(out, "started") != len(c.Members) {
		t.Errorf("members after the recovery:\n%s", out)
	}
}

// If this fails, a member whose data is gone or damaged cannot be rebuilt from
// the others with one command.
func TestWipedMemberRejoins(t *testing.T) {
	t.Parallel()
	c := start(t, process.Options{Size: 3})
	m, others := c.Members[2], c.Endpoints()[:2]
	putMany(t, c.Endpoints(), "many/", 100)
	if _, err := try(others, "member", "rejoin", m.Name, "--data-dir", m.Dir); err == nil || !strings.Contains(err.Error(), "is running") {
		t.Errorf("rejoin of a running member: %v", err)
	}
	if _, err := try(others, "member", "rejoin", "m9"); err == nil || !strings.Contains(err.Error(), "has no member m9") {
		t.Errorf("rejoin of an unknown member: %v", err)
	}
	m.Kill()
	writesGoOn(t, c.Members[0])
	id := memberID(t, others, m.Name)
	out := kvctl(t, others, "member", "rejoin", m.Name, "--data-dir", m.Dir)
	if left, err := filepath.Glob(filepath.Join(m.Dir, "member.given-up-*")); err != nil || len(left) != 1 || !strings.Contains(out, left[0]) {
		t.Errorf("the old data is in %q, %v; told:\n%s", left, err, out)
	}
	for _, want := range []string{"--name " + m.Name + " ", m.Name + "=" + m.PeerURL, "--initial-cluster-state existing"} {
		if !strings.Contains(out, want) {
			t.Errorf("the command lacks %q:\n%s", want, out)
		}
	}
	m.Args = append(m.Args, "--initial-cluster-state", "existing")
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	kvctl(t, others, "member", "rejoin", memberIDAt(t, others, m.PeerURL), "--wait")
	if now := memberID(t, others, m.Name); now == id {
		t.Errorf("member %s has the ID that it had", now)
	}
	wantEqualHashes(t, c.Members)
	wantMany(t, m.Endpoint(), "many/", 100)
	c.Members[0].Kill() // the new one counts
	writesGoOn(t, m)
}

// memberID is the ID of the member with the name, memberIDAt that of the one
// with the peer URL.
func memberID(t *testing.T, endpoints []string, name string) string {
	t.Helper()
	return memberWith(t, endpoints, ", "+name+", ")
}

func memberIDAt(t *testing.T, endpoints []string, url string) string {
	t.Helper()
	return memberWith(t, endpoints, ", "+url+", ")
}

func memberWith(t *testing.T, endpoints []string, text string) string {
	t.Helper()
	for line := range strings.Lines(kvctl(t, endpoints, "member", "list")) {
		if id, rest, _ := strings.Cut(line, ","); strings.Contains(","+rest, text) {
			return id
		}
	}
	t.Fatalf("no member with %q", text)
	return ""
}
