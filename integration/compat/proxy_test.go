package compat

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"go.uber.org/zap"

	"github.com/kvorum/kvorum/integration/compat/process"
)

// proxied is a cluster as clients see it through grpc-proxies, one before each member.
func (s *suite) proxied(t *testing.T, c *process.Cluster) *process.Cluster {
	t.Helper()
	binary := kvorumBinary(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fronts == nil {
		s.fronts = map[*process.Cluster]*process.Cluster{}
	}
	if front := s.fronts[c]; front != nil {
		return front
	}
	front := &process.Cluster{}
	for _, m := range c.Members {
		p := newProxy(t, binary, "--endpoints", m.Endpoint())
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		front.Members = append(front.Members, p)
	}
	s.fronts[c] = front
	return front
}

// newProxy is a grpc-proxy that does not run yet.
func newProxy(t *testing.T, binary string, args ...string) *process.Member {
	t.Helper()
	ports, err := process.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", ports[0])
	return &process.Member{
		Name: "proxy", Dir: t.TempDir() + "/proxy", ClientURL: "http://" + address, Binary: binary,
		Args: append([]string{"grpc-proxy", "start", "--listen-addr", address, "--advertise-client-url", address}, args...),
	}
}

// gauge reads one figure of a page of metrics.
func gauge(t *testing.T, url, name string) string {
	t.Helper()
	_, body := httpGet(t, url)
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// startProxy starts a proxy that ends with the test, and gives a client of it.
func startProxy(t *testing.T, c *process.Cluster, args ...string) (*process.Member, *env) {
	t.Helper()
	p := newProxy(t, kvorumBinary(t), append([]string{"--endpoints", strings.Join(c.Endpoints(), ",")}, args...)...)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Terminate()
		logOnFailure(t, &process.Cluster{Members: []*process.Member{p}})
	})
	return p, newEnv(t, &process.Cluster{Members: []*process.Member{p}})
}

// Many clients that watch the same thing must cost a member as much as one, and each must still see all of it; also those
// that start in the past, filter, or want what was before, and also when the member behind the proxy dies.
func TestProxyCoalescesWatches(t *testing.T) {
	c := startCluster(t, process.Options{Binary: targetBinary(t), Size: 3})
	p, e := startProxy(t, c)
	first := e.put("k", "0")
	const watchers = 200
	all := make([]clientv3.WatchChan, watchers)
	for i := range all {
		if i%20 == 0 { // ten streams of twenty watchers
			e.Client = newClient(t, p.Endpoint())
		}
		all[i] = e.Watch(e.ctx, e.key("k"), clientv3.WithCreatedNotify())
	}
	for _, w := range all {
		if r := next(t, w); !r.Created {
			t.Fatalf("got %+v, want the creation", r)
		}
	}
	if got := gauge(t, p.ClientURL+"/proxy/metrics", "etcd_grpc_proxy_upstream_watches_total"); got != "1" {
		t.Errorf("%s watches on members for %d watchers, want 1", got, watchers)
	}
	members := 0
	for _, m := range c.Members {
		n, _ := strconv.Atoi(gauge(t, m.ClientURL+"/metrics", "etcd_debugging_mvcc_watcher_total"))
		members += n
	}
	if members != 1 {
		t.Errorf("the members have %d watchers for %d of clients, want 1", members, watchers)
	}
	old := e.Watch(e.ctx, e.key("k"), clientv3.WithRev(first))
	deletes := e.Watch(e.ctx, e.key("k"), clientv3.WithFilterPut(), clientv3.WithPrevKV())
	var want []string
	expect := func(name string, w clientv3.WatchChan, want string) {
		t.Helper()
		n := strings.Count(want, ",") + 1
		if got := e.describe(collect(t, w, n)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	for i := range 5 {
		e.put("k", strconv.Itoa(i+1))
		want = append(want, fmt.Sprintf("PUT k=%d", i+1))
	}
	if _, err := e.Delete(e.ctx, e.key("k")); err != nil {
		t.Fatal(err)
	}
	want = append(want, "DELETE k")
	for i, w := range all {
		expect(fmt.Sprintf("watcher %d", i), w, strings.Join(want, ", "))
	}
	expect("from the past", old, "PUT k=0, "+strings.Join(want, ", "))
	expect("deletions only", deletes, "DELETE k was 5")

	for _, m := range c.Members[:2] { // one at a time, so that the cluster goes on
		m.Kill()
		e.get("k") // is repeated until there is a leader; a write would not be
		e.put("k", m.Name)
		for i, w := range all {
			expect(fmt.Sprintf("watcher %d without %s", i, m.Name), w, "PUT k="+m.Name)
		}
		expect("from the past", old, "PUT k="+m.Name)
		if err := m.Start(); err != nil {
			t.Fatal(err)
		}
	}
}

// A tenant must see its keys and no others, under the names it gave them.
func TestProxyNamespace(t *testing.T) {
	c := startCluster(t, process.Options{Binary: targetBinary(t), Size: 1})
	outside := newEnv(t, c)
	_, e := startProxy(t, c, "--namespace", "tenant/")
	e.prefix, outside.prefix = "", ""
	ctx := e.ctx
	outside.put("secret", "x")
	outside.put("tenant0", "x") // just behind the namespace
	all := e.Watch(ctx, "", clientv3.WithFromKey(), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
	next(t, all)
	e.put("a", "1")
	if r, err := e.Txn(ctx).If(clientv3.Compare(clientv3.Value("a"), "=", "1")).Then(clientv3.OpPut("b", "2"), clientv3.OpGet("a"),
		clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpGet("", clientv3.WithFromKey())}, nil)).Commit(); err != nil || !r.Succeeded {
		t.Fatalf("%+v, %v", r, err)
	} else if got := string(r.Responses[1].GetResponseRange().Kvs[0].Key); got != "a" {
		t.Errorf("a read in a transaction gave %q", got)
	} else if n := len(r.Responses[2].GetResponseTxn().Responses[0].GetResponseRange().Kvs); n != 2 {
		t.Errorf("a nested read of everything gave %d keys, want 2", n)
	}
	outside.put("tenant1", "x")
	if got := e.describe(collect(t, all, 2)); got != "PUT a=1, PUT b=2" {
		t.Errorf("a watch of everything saw %s", got)
	}
	if got := fmt.Sprint(e.names(e.get("", clientv3.WithFromKey()))); got != "[a b]" {
		t.Errorf("everything is %s", got)
	}
	if got := fmt.Sprint(outside.names(outside.get("", clientv3.WithFromKey()))); got != "[secret tenant/a tenant/b tenant0 tenant1]" {
		t.Errorf("the cluster holds %s", got)
	}
	lease, err := e.Grant(ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	e.put("leased", "x", clientv3.WithLease(lease.ID))
	outside.put("other", "x", clientv3.WithLease(lease.ID))
	if r, err := e.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys()); err != nil || fmt.Sprintf("%s", r.Keys) != "[leased]" {
		t.Errorf("keys of the lease %q, %v", r.Keys, err)
	}
	if _, err := e.Put(ctx, "", "x"); !errors.Is(err, rpctypes.ErrEmptyKey) {
		t.Errorf("an empty key: %v", err)
	}
	if r, err := e.Delete(ctx, "", clientv3.WithFromKey(), clientv3.WithPrevKV()); err != nil || r.Deleted != 3 || string(r.PrevKvs[0].Key) != "a" {
		t.Errorf("deleted everything: %+v, %v", r, err)
	}
	if got := len(outside.get("", clientv3.WithFromKey()).Kvs); got != 4 {
		t.Errorf("%d keys are left outside, want 4", got)
	}
	locks := v3lockpb.NewLockClient(e.ActiveConnection())
	locked, err := locks.Lock(ctx, &v3lockpb.LockRequest{Name: []byte("l"), Lease: int64(lease.ID)})
	if err != nil || !strings.HasPrefix(string(locked.Key), "l/") {
		t.Fatalf("lock: %v, %v", locked, err)
	}
	if got := outside.get("tenant/" + string(locked.Key)); len(got.Kvs) != 1 {
		t.Errorf("the lock's key is not in the namespace")
	}
	if _, err := locks.Unlock(ctx, &v3lockpb.UnlockRequest{Key: locked.Key}); err != nil {
		t.Error(err)
	}
}

// One client must never act with the rights of another.
func TestProxyKeepsUsersApart(t *testing.T) {
	c := startCluster(t, process.Options{Binary: targetBinary(t), Size: 1, Args: []string{"--bcrypt-cost", "4"}})
	p, e := startProxy(t, c)
	e.prefix = ""
	e.put("mine", "1")
	shell := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, user := range []string{"root", "reader", "stranger"} {
		_, err := e.UserAdd(e.ctx, user, "pw")
		shell(err)
		_, err = e.RoleAdd(e.ctx, user)
		shell(err)
		_, err = e.UserGrantRole(e.ctx, user, user)
		shell(err)
	}
	_, err := e.RoleGrantPermission(e.ctx, "reader", "mine", "", clientv3.PermissionType(clientv3.PermRead))
	shell(err)
	_, err = e.AuthEnable(e.ctx)
	shell(err)
	as := func(user string) *clientv3.Client {
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{p.Endpoint()}, Username: user, Password: "pw", DialTimeout: waitMax, Logger: zap.NewNop()})
		shell(err)
		t.Cleanup(func() { _ = client.Close() })
		return client
	}
	reader, stranger := as("reader"), as("stranger")
	for range 2 { // the second time from the cache
		if r, err := reader.Get(e.ctx, "mine", clientv3.WithSerializable()); err != nil || len(r.Kvs) != 1 {
			t.Errorf("the reader: %v, %v", r, err)
		}
		if r, err := stranger.Get(e.ctx, "mine", clientv3.WithSerializable()); !errors.Is(err, rpctypes.ErrPermissionDenied) {
			t.Errorf("a stranger read %v, %v", r, err)
		}
	}
	if r := next(t, reader.Watch(e.ctx, "mine", clientv3.WithCreatedNotify())); !r.Created || r.Err() != nil {
		t.Errorf("the reader's watch: %+v", r)
	}
	if r := next(t, stranger.Watch(e.ctx, "mine")); r.Err() == nil {
		t.Errorf("a stranger watches: %+v", r)
	}
	if _, err := reader.Put(e.ctx, "mine", "2"); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("the reader wrote: %v", err)
	}
	if _, err := e.Get(e.ctx, "mine"); !errors.Is(err, rpctypes.ErrUserEmpty) {
		t.Errorf("nobody at all: %v", err)
	}
}

// A program that keeps its leases through a proxy must not lose them when a member dies, nor burden it when many programs
// do.
func TestProxyCoalescesKeepAlives(t *testing.T) {
	c := startCluster(t, process.Options{Binary: targetBinary(t), Size: 3})
	p, e := startProxy(t, c)
	const clients = 20
	var channels []<-chan *clientv3.LeaseKeepAliveResponse
	var leases []clientv3.LeaseID
	for range clients {
		client := newClient(t, p.Endpoint())
		lease, err := client.Grant(e.ctx, 5)
		if err != nil {
			t.Fatal(err)
		}
		kept, err := client.KeepAlive(e.ctx, lease.ID)
		if err != nil {
			t.Fatal(err)
		}
		channels, leases = append(channels, kept), append(leases, lease.ID)
	}
	answered := func() {
		t.Helper()
		for i, kept := range channels {
			select {
			case r := <-kept:
				if r == nil || r.TTL != 5 {
					t.Fatalf("client %d: %+v", i, r)
				}
			case <-time.After(waitMax):
				t.Fatalf("client %d heard nothing", i)
			}
		}
	}
	answered()
	if got := gauge(t, p.ClientURL+"/proxy/metrics", "etcd_grpc_proxy_upstream_keepalive_streams_total"); got != "1" {
		t.Errorf("%s keep-alive streams for %d clients, want 1", got, clients)
	}
	c.Members[0].Kill()
	answered()
	answered()
	answered()
	for _, id := range leases {
		if r, err := e.TimeToLive(e.ctx, id); err != nil || r.TTL <= 0 {
			t.Errorf("lease %x was lost: %+v, %v", id, r, err)
		}
	}
	if once, err := e.KeepAliveOnce(e.ctx, 12345); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Errorf("a lease that never was: %v, %v", once, err)
	}
}

// Clients that follow the list of members must stay with the proxies, and find all of them.
func TestProxiesAreTheMembers(t *testing.T) {
	c := startCluster(t, process.Options{Binary: targetBinary(t), Size: 1})
	args := []string{"--resolver-prefix", "___grpc_proxy_endpoint", "--resolver-ttl", "2"}
	one, e := startProxy(t, c, args...)
	two, _ := startProxy(t, c, args...)
	expect := func(want ...string) {
		t.Helper()
		slices.Sort(want)
		deadline := time.Now().Add(waitMax)
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for {
			r, err := e.MemberList(e.ctx)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, m := range r.Members {
				got = append(got, m.ClientURLs...)
				if host, _ := os.Hostname(); m.Name != host {
					t.Fatalf("the name of a proxy is %q, want %q", m.Name, host)
				}
			}
			if slices.Sort(got); slices.Equal(got, want) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("members %v, want %v", got, want)
			}
			<-ticker.C
		}
	}
	expect(one.Endpoint(), two.Endpoint())
	two.Terminate()
	expect(one.Endpoint())
	entry, err := newClient(t, c.Endpoints()...).Get(e.ctx, "___grpc_proxy_endpoint/"+one.Endpoint())
	host, _ := os.Hostname()
	want := fmt.Sprintf(`{"Op":0,"Addr":"%s","Metadata":"{\"name\":\"%s\"}"}`, one.Endpoint(), host)
	if err != nil || len(entry.Kvs) != 1 || string(entry.Kvs[0].Value) != want {
		t.Errorf("the registration is %v, %v; want %s", entry, err, want)
	}
}

// A write through the proxy must be seen by the next read through it, from the cache too.
func TestProxyCache(t *testing.T) {
	c := startCluster(t, process.Options{Binary: targetBinary(t), Size: 1})
	p, e := startProxy(t, c)
	cached := func(want string) {
		t.Helper()
		if r := e.get("k", clientv3.WithSerializable()); len(r.Kvs) != 1 || string(r.Kvs[0].Value) != want {
			t.Errorf("read %v, want %s", r.Kvs, want)
		}
	}
	hits := func() string { return gauge(t, p.ClientURL+"/proxy/metrics", "etcd_grpc_proxy_cache_hits_total") }
	rev := e.put("k", "1")
	cached("1")
	cached("1")
	if got := hits(); got != "1" {
		t.Errorf("%s hits, want 1", got)
	}
	e.put("k", "2")
	cached("2")
	if _, err := e.Txn(e.ctx).Then(clientv3.OpPut(e.key("k"), "3")).Commit(); err != nil {
		t.Fatal(err)
	}
	cached("3")
	old := func() error {
		_, err := e.Get(e.ctx, e.key("k"), clientv3.WithSerializable(), clientv3.WithRev(rev))
		return err
	}
	if err := old(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Compact(e.ctx, rev+2); err != nil {
		t.Fatal(err)
	}
	if err := old(); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("a read at a compacted revision: %v", err)
	}
	if r, err := e.Delete(e.ctx, e.prefix, clientv3.WithPrefix()); err != nil || r.Deleted != 1 {
		t.Fatal(r, err)
	}
	if r := e.get("k", clientv3.WithSerializable()); len(r.Kvs) != 0 {
		t.Errorf("a deleted key is still read: %v", r.Kvs)
	}
}
