package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/process"
)

// waitMax is how long something that takes several elections may take.
const waitMax = 30 * time.Second

// programs are the two binaries, built once for all tests.
var programs struct{ kvorum, kvctl string }

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "kvorum")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		out, err := exec.Command("go", "build", "-o", dir, "../../cmd/kvorum", "../../cmd/kvctl").CombinedOutput()
		if err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
		programs.kvorum, programs.kvctl = filepath.Join(dir, "kvorum"), filepath.Join(dir, "kvctl")
		return m.Run()
	}())
}

func start(t *testing.T, o process.Options) *process.Cluster {
	t.Helper()
	o.Binary, o.Dir = programs.kvorum, t.TempDir()
	c, err := process.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return c
}

// try runs the control tool and returns its standard output.
func try(endpoints []string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*waitMax) // --wait has no end of its own
	defer cancel()
	cmd := exec.CommandContext(ctx, programs.kvctl, args...) //nolint:gosec // our own program
	if len(endpoints) > 0 {
		cmd.Env = append(os.Environ(), "ETCDCTL_ENDPOINTS="+strings.Join(endpoints, ","))
	}
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = fmt.Errorf("kvctl %s: %w: %s", strings.Join(args, " "), err, exit.Stderr)
	}
	return string(out), err
}

func kvctl(t *testing.T, endpoints []string, args ...string) string {
	t.Helper()
	out, err := try(endpoints, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// eventually repeats what may fail for a while.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline, tick := time.Now().Add(waitMax), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		<-tick.C
	}
}

// fill writes keys with versions, deletions, leases and a compaction.
func fill(t *testing.T, endpoints []string) {
	t.Helper()
	lease := regexp.MustCompile(`^lease ([0-9a-f]+) `).FindStringSubmatch(kvctl(t, endpoints, "lease", "grant", "6000"))
	if lease == nil {
		t.Fatal("lease grant printed no lease")
	}
	for i := range 8 {
		kvctl(t, endpoints, "put", fmt.Sprintf("key/%d", i%5), fmt.Sprintf("value %d", i))
	}
	kvctl(t, endpoints, "put", "leased", "1", "--lease", lease[1])
	kvctl(t, endpoints, "del", "key/4")
	kvctl(t, endpoints, "compaction", "4", "--physical")
}

// contents is what a snapshot has to keep: keys, revision, leases, and the hash of the history.
func contents(t *testing.T, endpoint string) string {
	t.Helper()
	at := []string{endpoint}
	var got struct {
		Header struct {
			Revision int64 `json:"revision"`
		} `json:"header"`
		Kvs json.RawMessage `json:"kvs"`
	}
	if err := json.Unmarshal([]byte(kvctl(t, at, "get", "--prefix", "", "-w", "json")), &got); err != nil {
		t.Fatal(err)
	}
	hash := kvctl(t, at, "endpoint", "hashkv")
	_, hash, _ = strings.Cut(hash, ",")
	leases := kvctl(t, at, "lease", "list")
	id := strings.Fields(leases)[3]
	held := regexp.MustCompile(`attached keys.*`).FindString(kvctl(t, at, "lease", "timetolive", id, "--keys"))
	return fmt.Sprintf("revision %d\nkeys %s\nhash %s%s%s", got.Header.Revision, got.Kvs, hash, leases, held)
}

// If this fails, a backup cannot be turned into a cluster again, or not into
// the same one.
func TestRestoreIntoThreeMembers(t *testing.T) {
	t.Parallel()
	from := start(t, process.Options{Size: 1})
	fill(t, from.Endpoints())
	want := contents(t, from.Endpoints()[0])
	file := filepath.Join(t.TempDir(), "backup.db")
	if out := kvctl(t, from.Endpoints(), "snapshot", "save", file); out != "Snapshot saved at "+file+"\nServer version 3.7.0\n" {
		t.Errorf("snapshot save printed %q", out)
	}
	if out := kvctl(t, nil, "snapshot", "status", file); !regexp.MustCompile(`^[0-9a-f]+, 11, \d+, \d+ kB, 3\.7\.0\n$`).MatchString(out) {
		t.Errorf("snapshot status printed %q", out)
	}
	offline := strings.Split(strings.TrimSpace(kvctl(t, nil, "hashkv", file)), ", ")
	if !strings.Contains(want, "hash  "+offline[0]+", "+offline[1]+"\n") {
		t.Errorf("hashkv of the file printed %v, the member said\n%s", offline, want)
	}
	to := start(t, process.Options{Size: 3, Prepare: func(m *process.Member, initial string) error {
		_, err := try(nil, "snapshot", "restore", file, "--data-dir", m.Dir, "--name", m.Name, "--initial-cluster", initial,
			"--initial-advertise-peer-urls", m.PeerURL, "--initial-cluster-token", process.DefaultToken, "--bump-revision=0")
		return err
	}})
	for _, endpoint := range to.Endpoints() {
		if got := contents(t, endpoint); got != want {
			t.Errorf("%s has\n%s\nwant\n%s", endpoint, got, want)
		}
	}
	if out := kvctl(t, to.Endpoints(), "put", "new", "1", "-w", "json"); !strings.Contains(out, `"revision":12,`) {
		t.Errorf("the first write after the restore: %s", out)
	}
	if _, err := try(nil, "snapshot", "restore", file, "--data-dir", to.Members[0].Dir); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a restore over a data directory: %v", err)
	}
}

// If this fails, clients of the old cluster do not notice that revisions which
// they have seen are gone.
func TestRestoreWithBumpCompacts(t *testing.T) {
	t.Parallel()
	from := start(t, process.Options{Size: 1})
	fill(t, from.Endpoints())
	file := filepath.Join(t.TempDir(), "backup.db")
	kvctl(t, from.Endpoints(), "snapshot", "save", file)
	to := start(t, process.Options{Size: 1, Prepare: func(m *process.Member, initial string) error {
		_, err := try(nil, "snapshot", "restore", file, "--data-dir", m.Dir, "--name", m.Name, "--initial-cluster", initial,
			"--initial-advertise-peer-urls", m.PeerURL, "--initial-cluster-token", process.DefaultToken,
			"--bump-revision", "1000", "--mark-compacted")
		return err
	}})
	if out := kvctl(t, to.Endpoints(), "get", "leased", "-w", "json"); !strings.Contains(out, `"revision":1011,`) {
		t.Errorf("after the restore: %s", out)
	}
	if _, err := try(to.Endpoints(), "watch", "leased", "--rev", "11"); err == nil || !strings.Contains(err.Error(), "compacted") {
		t.Errorf("an old watcher got %v", err)
	}
}

// If this fails, an operator cannot shrink a stopped member's database or mark
// it for another version, or loses keys by it.
func TestWorkOnStoppedMember(t *testing.T) {
	t.Parallel()
	c := start(t, process.Options{Size: 1})
	fill(t, c.Endpoints())
	want := contents(t, c.Endpoints()[0])
	m := c.Members[0]
	if !m.Terminate() {
		t.Fatal("the member did not stop")
	}
	if out := kvctl(t, nil, "defrag", "--data-dir", m.Dir); out != "" {
		t.Errorf("defrag printed %q", out)
	}
	for _, version := range []string{"3.5", "3.7", "3.6"} {
		kvctl(t, nil, "migrate", "--data-dir", m.Dir, "--target-version", version)
	}
	if out := kvctl(t, nil, "snapshot", "status", filepath.Join(m.Dir, "member", "snap", "db")); !strings.HasSuffix(out, ", 3.6.0\n") {
		t.Errorf("after migrate the file says %q", out)
	}
	kvctl(t, nil, "migrate", "--data-dir", m.Dir, "--target-version", "3.7")
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, c.Endpoints()[0]); got != want {
		t.Errorf("after defrag\n%s\nwant\n%s", got, want)
	}
}

// roles are the member IDs by role, leader first; all members must agree.
func roles(endpoints []string) (leader string, followers []string, err error) {
	out, err := try(endpoints, "endpoint", "status", "--cluster")
	if err != nil {
		return "", nil, err
	}
	for line := range strings.Lines(out) {
		f := strings.Split(strings.TrimSpace(line), ", ")
		if len(f) < 10 {
			return "", nil, fmt.Errorf("not a status: %q", line)
		}
		if f[8] == "true" {
			leader = f[1]
		} else {
			followers = append(followers, f[1])
		}
	}
	if leader == "" {
		return "", nil, fmt.Errorf("no leader in\n%s", out)
	}
	return leader, followers, nil
}

// If this fails, an operator cannot see a cluster as a whole, or move its
// leader away from a machine before it is switched off.
func TestLookAndMoveLeader(t *testing.T) {
	t.Parallel()
	c := start(t, process.Options{Size: 3})
	fill(t, c.Endpoints())
	out := kvctl(t, c.Endpoints()[:1], "endpoint", "health", "--cluster")
	if n := strings.Count(out, " is healthy: successfully committed proposal: took = "); n != 3 {
		t.Errorf("endpoint health --cluster:\n%s", out)
	}
	if out := kvctl(t, c.Endpoints()[:1], "member", "list"); strings.Count(out, ", started, m") != 3 {
		t.Errorf("member list:\n%s", out)
	}
	hashes := map[string]bool{}
	for line := range strings.Lines(kvctl(t, c.Endpoints()[:1], "endpoint", "hashkv", "--cluster", "--rev", "8")) {
		_, hash, _ := strings.Cut(line, ", ")
		hashes[hash] = true
	}
	if len(hashes) != 1 {
		t.Errorf("the members have different hashes: %v", hashes)
	}
	if out := kvctl(t, c.Endpoints()[:1], "defrag", "--cluster"); strings.Count(out, "Finished defragmenting etcd member[") != 3 {
		t.Errorf("defrag --cluster:\n%s", out)
	}
	var leader string
	var followers []string
	eventually(t, "find the leader", func() (err error) { leader, followers, err = roles(c.Endpoints()); return err })
	if out := kvctl(t, c.Endpoints(), "move-leader", followers[0]); out != "Leadership transferred from "+leader+" to "+followers[0]+"\n" {
		t.Errorf("move-leader printed %q", out)
	}
	eventually(t, "the new leader leads", func() error {
		if now, _, err := roles(c.Endpoints()); err != nil || now != followers[0] {
			return fmt.Errorf("%s leads, %w", now, err)
		}
		return nil
	})
	follower := slices.IndexFunc(c.Endpoints(), func(e string) bool { l, f, err := roles([]string{e}); return err == nil && l != "" && len(f) == 2 })
	if follower < 0 {
		t.Error("no member shows the whole cluster")
	}
}

// If this fails, a cluster cannot be given a new member or be rid of an old
// one.
func TestAddPromoteRemove(t *testing.T) {
	t.Parallel()
	c := start(t, process.Options{Size: 3})
	fill(t, c.Endpoints())
	endpoints := c.Endpoints()
	m, err := c.Join("m4")
	if err != nil {
		t.Fatal(err)
	}
	id := addLearner(t, endpoints, m)
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "promote", func() error {
		out, err := try(endpoints, "member", "promote", id)
		if err == nil && !strings.HasPrefix(out, fmt.Sprintf("Member %16s promoted in cluster ", id)) {
			t.Errorf("member promote printed %q", out)
		}
		return err
	})
	want := contents(t, endpoints[0])
	eventually(t, "the new member has caught up", func() error {
		if got := contents(t, m.Endpoint()); got != want {
			return fmt.Errorf("it has\n%s", got)
		}
		return nil
	})
	if out := kvctl(t, endpoints, "member", "remove", id); !strings.HasPrefix(out, fmt.Sprintf("Member %16s removed from cluster ", id)) {
		t.Errorf("member remove printed %q", out)
	}
	if out := kvctl(t, endpoints, "member", "list"); strings.Contains(out, id) {
		t.Errorf("after the removal:\n%s", out)
	}
}

// addLearner checks what a person is told to start the new member with, and
// returns its ID.
func addLearner(t *testing.T, endpoints []string, m *process.Member) string {
	t.Helper()
	added := ""
	eventually(t, "member add", func() error { // refused until the members have been connected for a while
		var err error
		added, err = try(endpoints, "member", "add", "m4", "--peer-urls", m.PeerURL, "--learner")
		return err
	})
	form := regexp.MustCompile(`^Member ([ 0-9a-f]{16}) added as learner to cluster [ 0-9a-f]{16}

ETCD_NAME="m4"
ETCD_INITIAL_CLUSTER="(.*)"
ETCD_INITIAL_ADVERTISE_PEER_URLS="` + m.PeerURL + `"
ETCD_INITIAL_CLUSTER_STATE="existing"
$`).FindStringSubmatch(added)
	if form == nil {
		t.Fatalf("member add printed %q", added)
	}
	if n := len(strings.Split(form[2], ",")); n != 4 || !strings.Contains(form[2], "m4="+m.PeerURL) {
		t.Errorf("ETCD_INITIAL_CLUSTER is %s", form[2])
	}
	id := strings.TrimSpace(form[1])
	if out := kvctl(t, endpoints, "member", "list"); !strings.Contains(out, id+", unstarted, , "+m.PeerURL+", , true\n") {
		t.Errorf("member list:\n%s", out)
	}
	return id
}
