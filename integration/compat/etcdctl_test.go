package compat

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// shell drives a cluster with Debian's etcdctl 3.4, a control tool that nobody here has built.
type shell struct {
	*env
	binary   string
	settings []string // variables of a cluster that needs more than endpoints; they come last and so count
}

func newShell(t *testing.T, e *env) *shell {
	t.Helper()
	binary, err := exec.LookPath("etcdctl")
	if err != nil {
		t.Skip("etcdctl is not installed: apt-get install etcd-client")
	}
	return &shell{env: e, binary: binary}
}

// command prepares a call with version 3 of the API.
func (s *shell) command(args ...string) *exec.Cmd {
	endpoints := strings.Join(s.cluster.Endpoints(), ",")
	if args[0] == "snapshot" { // asks one member, and refuses several
		endpoints = s.cluster.Members[0].Endpoint()
	}
	cmd := exec.CommandContext(s.ctx, s.binary, args...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "ETCDCTL_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(append(cmd.Env, "ETCDCTL_API=3", "ETCDCTL_ENDPOINTS="+endpoints), s.settings...)
	return cmd
}

// run calls etcdctl and returns what it prints; input may be empty.
func (s *shell) run(input string, args ...string) string {
	s.t.Helper()
	cmd := s.command(args...)
	cmd.Stdin = strings.NewReader(input)
	var failed bytes.Buffer
	cmd.Stderr = &failed
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("etcdctl %s: %v\n%s%s", strings.Join(args, " "), err, out, failed.String())
	}
	return string(out)
}

// expect calls etcdctl and compares what it prints.
func (s *shell) expect(want, input string, args ...string) {
	s.t.Helper()
	if got := s.run(input, args...); got != want {
		s.t.Errorf("etcdctl %s printed %q, want %q", strings.Join(args, " "), got, want)
	}
}

// fails calls etcdctl, which must fail and say why.
func (s *shell) fails(why string, args ...string) {
	s.t.Helper()
	out, err := s.command(args...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(string(out), why) {
		s.t.Errorf("etcdctl %s: %v, printed %q, want a failure with %q", strings.Join(args, " "), err, out, why)
	}
}

// Scripts written for etcd run unchanged: what they read from etcdctl must be what etcd would have them read.
func TestEtcdctlKeys(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		s := newShell(t, e)
		a, b := e.key("a"), e.key("b")
		s.expect("OK\n", "", "put", a, "1")
		s.expect("OK\n", "", "put", b, "2")
		s.expect(a+"\n1\n", "", "get", a)
		s.expect("1\n2\n", "", "get", "--prefix", "--print-value-only", e.prefix)
		s.expect(b+"\n2\n"+a+"\n1\n", "", "get", "--prefix", "--order=DESCEND", e.prefix)
		s.expect(a+"\n1\n", "", "get", "--prefix", "--limit=1", "--consistency=s", e.prefix)
		s.expect("OK\n"+a+"\n1\n", "", "put", "--prev-kv", a, "one")
		var answer struct {
			Header struct{ Revision int64 }
			Kvs    []struct {
				Key, Value     []byte
				CreateRevision int64 `json:"create_revision"`
				ModRevision    int64 `json:"mod_revision"`
				Version        int64
			}
			Count int64
		}
		if err := json.Unmarshal([]byte(s.run("", "get", a, "-w", "json")), &answer); err != nil {
			t.Fatal(err)
		}
		if kv := answer.Kvs[0]; answer.Count != 1 || string(kv.Value) != "one" || kv.Version != 2 ||
			kv.ModRevision != answer.Header.Revision || kv.CreateRevision >= kv.ModRevision {
			t.Errorf("json: %+v", answer)
		}
		s.expect("2\n", "", "del", "--prefix", e.prefix)
		s.expect("", "", "get", a)
		s.expect("0\n", "", "del", a)
	})
}

// A txn typed into the shell must take the branch that its compares say.
func TestEtcdctlTxn(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		s := newShell(t, e)
		k := e.key("k")
		s.run("", "put", k, "v")
		script := "value(\"" + k + "\") = \"v\"\nversion(\"" + k + "\") > \"0\"\n\nput " + k + " w\nget " + k + "\n\nput " + k + " wrong\n\n"
		s.expect("SUCCESS\n\nOK\n\n"+k+"\nw\n", script, "txn")
		s.expect("FAILURE\n\nOK\n", script, "txn")
		s.expect(k+"\nwrong\n", "", "get", k)
	})
}

// Watchers in shell scripts read events line by line.
func TestEtcdctlWatch(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		s := newShell(t, e)
		first := e.history()
		cmd := s.command("watch", "--prefix", "--rev", jsonNumber(first), e.prefix)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
		want := []string{
			"PUT", e.key("a"), "1", "PUT", e.key("a"), "2", "DELETE", e.key("a"), "",
			"PUT", e.key("b"), "3", "PUT", e.key("c"), "4", "PUT", e.key("d"), "5", "PUT", e.key("live"), "6",
		}
		lines := bufio.NewScanner(out)
		for i, line := range want {
			if line == "5" { // everything past has come: now a live one
				e.put("live", "6")
			}
			if !lines.Scan() {
				t.Fatalf("etcdctl watch ended after %d lines", i)
			}
			if lines.Text() != line {
				t.Errorf("line %d is %q, want %q", i, lines.Text(), line)
			}
		}
	})
}

func jsonNumber(n int64) string {
	text, err := json.Marshal(n)
	if err != nil {
		panic(err) // an integer always encodes
	}
	return string(text)
}

// Leases from the shell: granted, kept alive, listed, revoked with their keys.
func TestEtcdctlLease(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		s := newShell(t, e)
		granted := strings.Fields(s.run("", "lease", "grant", "300"))
		id := granted[1]
		if strings.Join(granted, " ") != "lease "+id+" granted with TTL(300s)" {
			t.Fatalf("grant printed %q", granted)
		}
		s.expect("OK\n", "", "put", "--lease="+id, e.key("k"), "v")
		s.expect("lease "+id+" keepalived with TTL(300)\n", "", "lease", "keep-alive", "--once", id)
		if got := s.run("", "lease", "timetolive", "--keys", id); !strings.HasPrefix(got, "lease "+id+" granted with TTL(300s), remaining(") ||
			!strings.Contains(got, "attached keys(["+e.key("k")+"])") {
			t.Errorf("timetolive printed %q", got)
		}
		if got := s.run("", "lease", "list"); !strings.Contains(got, id) {
			t.Errorf("list printed %q", got)
		}
		s.expect("lease "+id+" revoked\n", "", "lease", "revoke", id)
		s.expect("", "", "get", e.key("k"))
		s.fails("etcdserver: requested lease not found", "lease", "revoke", id)
		s.fails("etcdserver: requested lease not found", "put", "--lease="+id, e.key("k"), "v")
	})
}

// The commands of an operator's day: health, status, hash, members, compaction, defragmentation, alarms.
func TestEtcdctlMaintenance(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		if e.proxied {
			t.Skip("about members, which a proxy hides")
		}
		s := newShell(t, e)
		old := e.put("k", "1")
		rev := e.put("k", "2")
		for _, m := range e.cluster.Members {
			health, err := s.command("endpoint", "health").CombinedOutput()
			if err != nil || !strings.Contains(string(health), m.Endpoint()+" is healthy: successfully committed proposal") {
				t.Errorf("health printed %q, %v", health, err)
			}
			if got := s.run("", "endpoint", "status"); !strings.Contains(got, m.Endpoint()+", ") || !strings.Contains(got, ", 3.7.") {
				t.Errorf("status printed %q", got)
			}
			if got := s.run("", "member", "list"); !strings.Contains(got, ", started, "+m.Name+", "+m.PeerURL+", "+m.ClientURL+", false") {
				t.Errorf("member list printed %q", got)
			}
			if got := s.run("", "endpoint", "hashkv"); !strings.Contains(got, m.Endpoint()+", ") {
				t.Errorf("hashkv printed %q", got)
			}
		}
		s.expect("compacted revision "+jsonNumber(rev)+"\n", "", "compaction", jsonNumber(rev))
		s.fails("etcdserver: mvcc: required revision has been compacted", "get", "--rev="+jsonNumber(old), e.key("k"))
		s.fails("etcdserver: mvcc: required revision has been compacted", "compaction", jsonNumber(rev))
		s.fails("etcdserver: mvcc: required revision is a future revision", "get", "--rev=1099511627776", e.key("k"))
		for _, m := range e.cluster.Members {
			if got := s.run("", "defrag"); !strings.Contains(got, "Finished defragmenting etcd member["+m.Endpoint()+"]") {
				t.Errorf("defrag printed %q", got)
			}
		}
		s.expect("", "", "alarm", "list")
	})
}

// Locks and elections from scripts: the command runs while the lock is held, and the key is gone afterwards.
func TestEtcdctlLockAndElect(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		s := newShell(t, e)
		s.expect("held\n", "", "lock", e.key("lock"), "echo", "held")
		if left := e.get("lock", clientv3.WithPrefix()).Count; left != 0 {
			t.Errorf("%d keys are left of the lock", left)
		}
		cmd := s.command("elect", e.key("election"), "me")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
		lines := bufio.NewScanner(out)
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), e.key("election")+"/") {
			t.Fatalf("elect printed %q first", lines.Text())
		}
		if !lines.Scan() || lines.Text() != "me" {
			t.Errorf("elect printed %q, want me", lines.Text())
		}
	})
}

// A backup made with the old tool must be readable by the old tool.
func TestEtcdctlSnapshot(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		s := newShell(t, e)
		e.put("k", "v")
		file := filepath.Join(t.TempDir(), "snapshot.db")
		s.run("", "snapshot", "save", file)
		var status struct {
			Revision  int64
			TotalKey  int64
			TotalSize int64
		}
		if err := json.Unmarshal([]byte(s.run("", "snapshot", "status", file, "-w", "json")), &status); err != nil {
			t.Fatal(err)
		}
		if status.Revision < 2 || status.TotalKey < 1 || status.TotalSize == 0 {
			t.Errorf("status %+v", status)
		}
	})
}
