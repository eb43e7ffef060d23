package compat

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/kvorum/kvorum/integration/compat/process"
)

var targetFlag = flag.String("target", "kvorum", "what the suite runs against: kvorum or etcd")

// waitMax bounds every wait of the suite.
const waitMax = 30 * time.Second

// suite is what the tests share: the binaries, and one cluster of each size. Guarded by mu.
type suite struct {
	mu       sync.Mutex
	dir      string
	built    map[string]string // package -> binary
	clusters map[int]*process.Cluster
	fronts   map[*process.Cluster]*process.Cluster // proxies by what is behind them
}

var shared = &suite{built: map[string]string{}, clusters: map[int]*process.Cluster{}}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(shared.run(m))
}

func (s *suite) run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "compat")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	s.dir = dir
	defer func() {
		for _, front := range s.fronts {
			front.Stop()
		}
		for _, c := range s.clusters {
			c.Stop()
		}
		_ = os.RemoveAll(dir)
	}()
	return m.Run()
}

// binary is a program of this repository: named by the environment, or built once. root is the module's directory.
func (s *suite) binary(t *testing.T, env, root, pkg string) string {
	t.Helper()
	if path := os.Getenv(env); path != "" {
		return path
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if path := s.built[pkg]; path != "" {
		return path
	}
	path := filepath.Join(s.dir, filepath.Base(pkg))
	build := exec.Command("go", "build", "-o", path, pkg)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s (or set %s): %v\n%s", pkg, env, err, out)
	}
	s.built[pkg] = path
	return path
}

func etcdBinary(t *testing.T) string { return shared.binary(t, "ETCD_BIN", ".", "./cmd/etcdserver") }
func kvorumBinary(t *testing.T) string {
	return shared.binary(t, "KVORUM_BIN", filepath.Join("..", ".."), "./cmd/kvorum")
}
func kvctlBinary(t *testing.T) string {
	return shared.binary(t, "KVCTL_BIN", filepath.Join("..", ".."), "./cmd/kvctl")
}

// targetBinary is the server under test.
func targetBinary(t *testing.T) string {
	t.Helper()
	switch *targetFlag {
	case "etcd":
		return etcdBinary(t)
	case "kvorum":
		return kvorumBinary(t)
	}
	t.Fatalf("-target=%s: use kvorum or etcd", *targetFlag)
	return ""
}

// startCluster starts a cluster that ends with the test.
func startCluster(t *testing.T, o process.Options) *process.Cluster {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	c, err := process.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Stop()
		logOnFailure(t, c)
	})
	return c
}

// eachSize runs a test against a shared cluster of one and of three members, and against the latter through proxies. Tests keep to keys of their own.
func eachSize(t *testing.T, test func(t *testing.T, e *env)) {
	t.Helper()
	for _, size := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d-node", size), func(t *testing.T) {
			c := shared.cluster(t, size)
			t.Cleanup(func() { logOnFailure(t, c) })
			test(t, newEnv(t, c))
		})
	}
	if *targetFlag == "kvorum" {
		t.Run("grpc-proxy", func(t *testing.T) {
			c := shared.proxied(t, shared.cluster(t, 3))
			t.Cleanup(func() { logOnFailure(t, c) })
			e := newEnv(t, c)
			e.proxied = true
			test(t, e)
		})
	}
}

func (s *suite) cluster(t *testing.T, size int) *process.Cluster {
	t.Helper()
	binary := targetBinary(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.clusters[size]; c != nil {
		return c
	}
	c, err := process.Start(process.Options{Binary: binary, Size: size, Dir: filepath.Join(s.dir, fmt.Sprint(size))})
	if err != nil {
		t.Fatal(err)
	}
	s.clusters[size] = c
	return c
}

func logOnFailure(t *testing.T, c *process.Cluster) {
	if !t.Failed() {
		return
	}
	for _, m := range c.Members {
		t.Logf("last log lines of %s:\n%s", m.Name, m.LogTail(15))
	}
}

// env is what a test needs: a client of all members and a prefix that no other test uses.
type env struct {
	*clientv3.Client
	t       *testing.T
	ctx     context.Context
	cluster *process.Cluster
	prefix  string
	proxied bool // through grpc-proxies
}

func newEnv(t *testing.T, c *process.Cluster) *env {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*waitMax)
	t.Cleanup(cancel)
	return &env{
		Client: newClient(t, c.Endpoints()...), t: t, ctx: ctx, cluster: c,
		prefix: fmt.Sprintf("%s/%d/", t.Name(), time.Now().UnixNano()),
	}
}

func newClient(t *testing.T, endpoints ...string) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, DialTimeout: waitMax, Logger: zap.NewNop(), MaxCallSendMsgSize: 64 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// on is the same test through one member only: what it has answered, it has applied, while another may be behind.
func (e *env) on(member int) *env {
	e.t.Helper()
	one := *e
	one.Client = newClient(e.t, e.cluster.Members[member%len(e.cluster.Members)].Endpoint())
	return &one
}

// key is a key of this test.
func (e *env) key(name string) string { return e.prefix + name }

// put writes a key of this test and returns the revision.
func (e *env) put(name, value string, options ...clientv3.OpOption) int64 {
	e.t.Helper()
	answer, err := e.Put(e.ctx, e.key(name), value, options...)
	if err != nil {
		e.t.Fatalf("put %s: %v", name, err)
	}
	return answer.Header.Revision
}

// get reads a key of this test.
func (e *env) get(name string, options ...clientv3.OpOption) *clientv3.GetResponse {
	e.t.Helper()
	answer, err := e.Get(e.ctx, e.key(name), options...)
	if err != nil {
		e.t.Fatalf("get %s: %v", name, err)
	}
	return answer
}

// names are the keys of an answer without the test's prefix.
func (e *env) names(r *clientv3.GetResponse) []string {
	names := []string{}
	for _, kv := range r.Kvs {
		names = append(names, string(kv.Key)[len(e.prefix):])
	}
	return names
}
