package compat

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/kvorum/kvorum/integration/compat/process"
)

// guarded is a cluster under TLS, with client certificates required, and with authentication on: root may do everything,
// alice may read and write below secure/.
type guarded struct {
	t       *testing.T
	cluster *process.Cluster
	certs   string // folder of what kvctl certs made
	urls    []string
}

const securePrefix = "secure/"

// eachSecure runs a test against guarded clusters of one and of three members, as alice.
func eachSecure(t *testing.T, test func(t *testing.T, g *guarded, alice *env)) {
	t.Helper()
	for _, size := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d-node", size), func(t *testing.T) {
			g := startGuarded(t, size)
			test(t, g, g.as(t, "alice"))
		})
	}
}

func startGuarded(t *testing.T, size int) *guarded {
	t.Helper()
	g := &guarded{t: t, cluster: &process.Cluster{}, certs: filepath.Join(t.TempDir(), "certs")}
	g.kvctl("certs", "init", "--dir", g.certs)
	g.kvctl("certs", "issue", "--dir", g.certs, "--member", "node=127.0.0.1")
	g.kvctl("certs", "issue", "--dir", g.certs, "--client", "tester")
	ports, err := process.FreePorts(2 * size)
	if err != nil {
		t.Fatal(err)
	}
	var initial []string
	for i := range size {
		initial = append(initial, fmt.Sprintf("m%d=https://127.0.0.1:%d", i, ports[2*i+1]))
	}
	for i := range size {
		client, peer := fmt.Sprintf("127.0.0.1:%d", ports[2*i]), fmt.Sprintf("https://127.0.0.1:%d", ports[2*i+1])
		g.urls = append(g.urls, "https://"+client)
		m := &process.Member{
			Name: fmt.Sprintf("m%d", i), Dir: filepath.Join(t.TempDir(), "data"), Binary: targetBinary(t), ClientURL: "http://" + client,
		}
		m.Args = append([]string{
			"--name", m.Name, "--data-dir", m.Dir, "--bcrypt-cost", "4",
			"--listen-client-urls", "https://" + client, "--advertise-client-urls", "https://" + client,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", strings.Join(initial, ","),
		}, g.serverTLS()...)
		g.cluster.Members = append(g.cluster.Members, m)
	}
	t.Cleanup(func() { g.cluster.Stop(); logOnFailure(t, g.cluster) })
	if err := g.cluster.StartAll(); err != nil {
		t.Fatal(err)
	}
	g.enableAuth()
	return g
}

func (g *guarded) kvctl(args ...string) {
	g.t.Helper()
	if out, err := exec.Command(kvctlBinary(g.t), args...).CombinedOutput(); err != nil {
		g.t.Fatalf("kvctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// file is one of the files that kvctl certs made.
func (g *guarded) file(name string) string { return filepath.Join(g.certs, name) }

func (g *guarded) serverTLS() (flags []string) {
	for _, side := range []string{"", "peer-"} {
		flags = append(flags,
			"--"+side+"cert-file="+g.file("node.pem"), "--"+side+"key-file="+g.file("node-key.pem"),
			"--"+side+"trusted-ca-file="+g.file("ca.pem"), "--"+side+"client-cert-auth=true")
	}
	return flags
}

// client is the official client of some members; without a user it does not log in.
func (g *guarded) client(t *testing.T, user string, urls []string) (*clientv3.Client, error) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(g.file("tester.pem"), g.file("tester-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	authority, err := os.ReadFile(g.file("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	config := clientv3.Config{
		Endpoints: urls, DialTimeout: waitMax, Logger: zap.NewNop(),
		TLS: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots},
	}
	if user != "" {
		config.Username, config.Password = user, user+"-secret"
	}
	return clientv3.New(config)
}

// as is what a test of one user needs: a client of all members, or of those given.
func (g *guarded) as(t *testing.T, user string, urls ...string) *env {
	t.Helper()
	if len(urls) == 0 {
		urls = g.urls
	}
	client, err := g.client(t, user, urls)
	if err != nil {
		t.Fatalf("log in as %s: %v", user, err)
	}
	t.Cleanup(func() { _ = client.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 2*waitMax)
	t.Cleanup(cancel)
	prefix := fmt.Sprintf("%s%s/%d/", securePrefix, t.Name(), time.Now().UnixNano())
	return &env{Client: client, t: t, ctx: ctx, cluster: g.cluster, prefix: prefix}
}

func (g *guarded) enableAuth() {
	e := g.as(g.t, "")
	for _, user := range []string{"root", "alice"} {
		e.ok(e.UserAdd(e.ctx, user, user+"-secret"))
	}
	e.ok(e.RoleAdd(e.ctx, "root"))
	e.ok(e.RoleAdd(e.ctx, "users"))
	for _, prefix := range []string{securePrefix, "__" + securePrefix} { // the priority queue counts in keys with __ before
		end := clientv3.GetPrefixRangeEnd(prefix)
		e.ok(e.RoleGrantPermission(e.ctx, "users", prefix, end, clientv3.PermissionType(clientv3.PermReadWrite)))
	}
	e.ok(e.UserGrantRole(e.ctx, "root", "root"))
	e.ok(e.UserGrantRole(e.ctx, "alice", "users"))
	e.ok(e.AuthEnable(e.ctx))
}

// shell is etcdctl with certificates and a user.
func (g *guarded) shell(t *testing.T, user string) *shell {
	t.Helper()
	s := newShell(t, g.as(t, user))
	s.settings = []string{
		"ETCDCTL_ENDPOINTS=" + strings.Join(g.urls, ","), "ETCDCTL_CACERT=" + g.file("ca.pem"),
		"ETCDCTL_CERT=" + g.file("tester.pem"), "ETCDCTL_KEY=" + g.file("tester-key.pem"), "ETCDCTL_USER=" + user + ":" + user + "-secret",
	}
	return s
}

// A production cluster has TLS and users: Debian's etcdctl must work there as it does on an open one, and no further.
func TestSecureEtcdctl(t *testing.T) {
	eachSecure(t, func(t *testing.T, g *guarded, _ *env) {
		s := g.shell(t, "alice")
		k := s.key("k")
		s.expect("OK\n", "", "put", k, "v")
		s.expect(k+"\nv\n", "", "get", k)
		s.expect("SUCCESS\n\nOK\n", "value(\""+k+"\") = \"v\"\n\nput "+k+" w\n\n\n", "txn")
		secureWatch(t, s, k)
		s.fails("permission denied", "put", "elsewhere", "v")
		s.fails("permission denied", "get", "--prefix", "s")
		s.fails("permission denied", "compaction", "2")
		s.fails("permission denied", "user", "list")
		s.expect("held\n", "", "lock", s.key("lock"), "echo", "held")
		lease := strings.Fields(s.run("", "lease", "grant", "300"))[1]
		s.expect("OK\n", "", "put", "--lease="+lease, s.key("leased"), "v")
		s.expect("lease "+lease+" revoked\n", "", "lease", "revoke", lease)
		s.expect("", "", "get", s.key("leased"))

		root := g.shell(t, "root")
		root.expect("alice\nroot\n", "", "user", "list")
		root.expect("root\nusers\n", "", "role", "list")
		root.run("", "put", "elsewhere", "v")
		root.settings = append(root.settings, "ETCDCTL_ENDPOINTS="+g.urls[0])
		root.run("", "snapshot", "save", filepath.Join(t.TempDir(), "snapshot.db"))
		root.run("", "compaction", "2")

		wrong := g.shell(t, "alice")
		wrong.settings = append(wrong.settings, "ETCDCTL_USER=alice:wrong")
		wrong.fails("authentication failed, invalid user ID or password", "get", k)
		bare := g.shell(t, "alice")
		bare.settings = append(bare.settings, "ETCDCTL_CERT=", "ETCDCTL_KEY=")
		bare.fails("context deadline exceeded", "--command-timeout=1s", "--dial-timeout=1s", "get", k)
	})
}

// secureWatch reads what a watch from the beginning prints about a key that was put twice.
func secureWatch(t *testing.T, s *shell, key string) {
	t.Helper()
	watch := s.command("watch", "--rev=1", key)
	out, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = watch.Process.Kill(); _ = watch.Wait() }()
	lines := bufio.NewScanner(out)
	for i, want := range []string{"PUT", key, "v", "PUT", key, "w"} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("line %d of the watch is %q, want %q", i, lines.Text(), want)
		}
	}
}
