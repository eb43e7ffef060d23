package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/internal/process"
	"github.com/kvorum/kvorum/internal/srv/srvtest"
	"github.com/kvorum/kvorum/pki"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// freePort is a port of the loopback interface that this process has for itself.
func freePort(t *testing.T) int {
	t.Helper()
	return must[[]int](t)(process.FreePorts(1))[0]
}

// founders are members that start together and find each other by discovery.
type founders struct {
	t       *testing.T
	members []*testMember
}

// found starts n members at once. change gets each one's configuration, which
// has its peer port already.
func found(t *testing.T, n int, change func(i int, c *Config)) *founders {
	t.Helper()
	f := &founders{t: t, members: make([]*testMember, n)}
	type started struct {
		i   int
		m   *testMember
		err error
	}
	all := make(chan started, n)
	for i := range n {
		cfg := discoveryConfig(t, fmt.Sprintf("m%d", i))
		change(i, &cfg)
		go func() {
			m, err := runMember(t, cfg)
			all <- started{i, m, err}
		}()
	}
	for range n {
		one := <-all
		if one.err != nil {
			t.Fatalf("member %d: %v", one.i, one.err)
		}
		f.members[one.i] = one.m
		t.Cleanup(one.m.stop)
	}
	return f
}

// discoveryConfig is a member with one peer URL of its own on loopback.
func discoveryConfig(t *testing.T, name string) Config {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Name, cfg.DataDir, cfg.UnsafeNoFsync = name, t.TempDir(), true
	cfg.ListenPeerURLs = mustURLs(fmt.Sprintf("http://127.0.0.1:%d", freePort(t)))
	cfg.AdvertisePeerURLs, cfg.ListenClientURLs = cfg.ListenPeerURLs, mustURLs("http://127.0.0.1:0")
	cfg.HeartbeatMillis, cfg.ElectionMillis = 20, 200
	return cfg
}

// runMember starts a member without a client connection.
func runMember(t *testing.T, cfg Config) (*testMember, error) {
	ctx, cancel := context.WithTimeout(context.Background(), testWait)
	defer cancel()
	s, err := New(ctx, cfg, slog.New(slog.NewJSONHandler(io.Discard, nil)))
	if err != nil {
		return nil, err
	}
	runCtx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(runCtx) }()
	m := &testMember{Server: s, t: t}
	m.stop = func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("member ended with %v", err)
		}
		done <- nil
	}
	return m, nil
}

// expectOneCluster writes through one member and reads through the others.
func (f *founders) expectOneCluster() {
	f.t.Helper()
	for i, m := range f.members {
		c := must[*client.Client](f.t)(client.New(client.Config{Endpoints: []string{m.clientListeners[0].Addr().String()}}))
		f.t.Cleanup(func() { _ = c.Close() })
		ctx, cancel := context.WithTimeout(f.t.Context(), testWait)
		f.t.Cleanup(cancel)
		if i == 0 {
			if _, err := c.Put(ctx, "k", "v"); err != nil {
				f.t.Fatal(err)
			}
		}
		r := must[*pb.RangeResponse](f.t)(c.Get(ctx, "k"))
		if len(r.Kvs) != 1 {
			f.t.Errorf("member %d does not see what member 0 has written", i)
		}
		members := must[*pb.MemberListResponse](f.t)(c.Members(ctx, false))
		if len(members.Members) != len(f.members) {
			f.t.Errorf("member %d knows %d members, want %d", i, len(members.Members), len(f.members))
		}
	}
}

// If this fails, members that are told only a domain do not become a cluster.
func TestMembersFindEachOtherByDNS(t *testing.T) {
	var records []string
	var ports []int
	for i := range 3 {
		ports = append(ports, freePort(t))
		records = append(records, fmt.Sprintf("_etcd-server-blue._tcp.cluster.test. 60 IN SRV 0 0 %d m%d.cluster.test.", ports[i], i),
			fmt.Sprintf("m%d.cluster.test. 60 IN A 127.0.0.1", i))
	}
	resolver := srvtest.Start(t, records...)
	f := found(t, 3, func(i int, c *Config) {
		c.ListenPeerURLs = mustURLs(fmt.Sprintf("http://127.0.0.1:%d", ports[i]))
		c.AdvertisePeerURLs = c.ListenPeerURLs
		if i == 1 { // by its name, as an operator would write it
			c.AdvertisePeerURLs = mustURLs(fmt.Sprintf("http://m1.cluster.test:%d", ports[i]))
		}
		c.Discovery.Domain, c.Discovery.Service, c.Discovery.Resolver = "cluster.test", "blue", resolver
	})
	f.expectOneCluster()
}

// If this fails, a member that no record names starts a cluster of its own, or
// one is not told why it cannot start.
func TestDNSWithoutThisMember(t *testing.T) {
	resolver := srvtest.Start(t, "_etcd-server._tcp.cluster.test. 60 IN SRV 0 0 1 other.test.", "other.test. 60 IN A 127.0.0.1")
	for domain, want := range map[string]string{
		"cluster.test": `cannot find local etcd member "m" in SRV records`,
		"nowhere.test": "error setting up initial cluster: error querying DNS SRV records for _etcd-server-ssl",
	} {
		cfg := discoveryConfig(t, "m")
		cfg.Discovery.Domain, cfg.Discovery.Resolver = domain, resolver
		if _, err := runMember(t, cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", domain, err, want)
		}
	}
}

// If this fails, whoever can answer for the DNS can put a member of his own
// between those of a cluster, or certificates that are good for etcd are not for
// Kvorum.
func TestMembersOfADomainShowItsCertificate(t *testing.T) {
	now := time.Now()
	valid := pki.Validity{From: now.Add(-time.Hour), To: now.Add(time.Hour)}
	authority := must[*pki.Authority](t)(pki.NewAuthority("ca", valid))
	dir := t.TempDir()
	ca := pki.Paths{Cert: filepath.Join(dir, "ca.pem"), Key: filepath.Join(dir, "ca-key.pem")}
	if err := authority.Pair().Write(ca); err != nil {
		t.Fatal(err)
	}
	pair := must[pki.Pair](t)(authority.Issue(pki.Subject{Hosts: []string{"127.0.0.1"}, Server: true, Client: true}, valid))
	own := pki.Paths{Cert: filepath.Join(dir, "own.pem"), Key: filepath.Join(dir, "own-key.pem")}
	if err := pair.Write(own); err != nil {
		t.Fatal(err)
	}
	// Without a CA file only the domain's name counts; with one, the member's own.
	for _, c := range []struct{ trusted, wantName string }{{"", "cluster.test"}, {ca.Cert, ""}} {
		cfg := discoveryConfig(t, "m")
		port := freePort(t)
		cfg.ListenPeerURLs = mustURLs(fmt.Sprintf("https://127.0.0.1:%d", port))
		cfg.AdvertisePeerURLs = cfg.ListenPeerURLs
		cfg.PeerTLS = TransportSecurity{CertFile: own.Cert, KeyFile: own.Key, TrustedCAFile: c.trusted}
		cfg.Discovery.Domain = "cluster.test"
		cfg.Discovery.Resolver = srvtest.Start(t, fmt.Sprintf("_etcd-server-ssl._tcp.cluster.test. 60 IN SRV 0 0 %d m.cluster.test.", port), "m.cluster.test. 60 IN A 127.0.0.1")
		m, err := runMember(t, cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.peerTLS.Client().ServerName; got != c.wantName {
			t.Errorf("CA file %q: members must have the name %q, want %q", c.trusted, got, c.wantName)
		}
		// A member asks another one, here itself, as it would any other.
		ctx, cancel := context.WithTimeout(t.Context(), testWait)
		err = askPeerJSON(ctx, m.peerClient, cfg.AdvertisePeerURLs[0].String(), "/version", &versions{})
		cancel()
		if (c.trusted != "") != (err == nil) {
			t.Errorf("CA file %q: %v", c.trusted, err)
		}
		m.stop()
	}
}

// registryURL is the client URL of a member that keeps lists.
func registryURL(m *testMember) string { return "http://" + m.clientListeners[0].Addr().String() }

// If this fails, members that are told only a token do not become a cluster, or
// more of them do than shall.
func TestMembersFindEachOtherByToken(t *testing.T) {
	service := startMember(t, nil)
	kv := pb.NewKVClient(service.conn)
	put := func(key, value string) {
		t.Helper()
		must[*pb.PutResponse](t)(kv.Put(service.ctx, &pb.PutRequest{Key: []byte("/_etcd/registry/" + key), Value: []byte(value)}))
	}
	put("t1/_config/size", "3")
	var configs [3]Config
	f := found(t, 3, func(i int, c *Config) {
		c.Discovery.Token, c.Discovery.Endpoints = "t1", []string{registryURL(service)}
		configs[i] = *c
	})
	f.expectOneCluster()
	r := must[*pb.RangeResponse](t)(kv.Range(service.ctx, &pb.RangeRequest{Key: []byte("/_etcd/registry/t1/members/"), RangeEnd: []byte("/_etcd/registry/t1/members0")}))
	lines := map[string]string{}
	for _, line := range r.Kvs {
		lines[string(line.Key)] = string(line.Value)
	}
	for i, m := range f.members {
		key := fmt.Sprintf("/_etcd/registry/t1/members/%x", uint64(m.self))
		if want := configs[i].Name + "=" + configs[i].AdvertisePeerURLs[0].String(); lines[key] != want {
			t.Errorf("the list says %q for %s, want %q", lines[key], key, want)
		}
	}

	put("bad/_config/size", "three")
	for token, want := range map[string]string{
		"t1":   "failed to join discovery cluster (discovery: cluster is full)",
		"bad":  "failed to join discovery cluster (discovery: size key is bad)",
		"none": "failed to join discovery cluster (discovery: size key not found)",
	} {
		cfg := discoveryConfig(t, "late")
		cfg.Discovery.Token, cfg.Discovery.Endpoints = token, []string{registryURL(service)}
		if _, err := runMember(t, cfg); err == nil || err.Error() != want {
			t.Errorf("token %s: %v, want %q", token, err, want)
		}
	}

	// With a log of its own a member needs no discovery: the list may be gone.
	f.members[2].stop()
	service.stop()
	again, err := runMember(t, configs[2])
	if err != nil {
		t.Fatalf("a restart without the discovery service: %v", err)
	}
	f.members[2] = again
	t.Cleanup(again.stop)
	f.expectOneCluster()
}

// If this fails, a member waits for others without end when it is told to stop.
func TestDiscoveryEndsWithTheProcess(t *testing.T) {
	service := startMember(t, nil)
	size := &pb.PutRequest{Key: []byte("/_etcd/registry/t/_config/size"), Value: []byte("2")}
	must[*pb.PutResponse](t)(pb.NewKVClient(service.conn).Put(service.ctx, size))
	for _, endpoint := range []string{registryURL(service), "http://127.0.0.1:1"} {
		cfg := discoveryConfig(t, "m")
		cfg.Discovery.Token, cfg.Discovery.Endpoints, cfg.Discovery.RequestTimeout = "t", []string{endpoint}, 200*time.Millisecond
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err := New(ctx, cfg, slog.New(slog.NewJSONHandler(io.Discard, nil)))
		if cancel(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v, want the deadline's error", endpoint, err)
		}
	}
}

// If this fails, a member follows one of two contradicting flags and nobody is
// told.
func TestDiscoveryFlagErrors(t *testing.T) {
	const exclusive = `multiple discovery or bootstrap flags are set. Choose one of "initial-cluster", "discovery-endpoints" or "discovery-srv"`
	for flags, want := range map[string]string{
		"--discovery-srv=d --initial-cluster=default=http://localhost:2380":          exclusive,
		"--discovery-srv=d --discovery-token=t --discovery-endpoints=e":              exclusive,
		"--discovery-endpoints=e --discovery-token=t --initial-cluster=m=http://h:1": exclusive,
		"--discovery-token=t":     "both --discovery-token and --discovery-endpoints must be set",
		"--discovery-endpoints=e": "both --discovery-token and --discovery-endpoints must be set",
		"--discovery-token=t --discovery-endpoints=e --discovery-dial-timeout=0s": "--discovery-dial-timeout must be >0",
		"--discovery-token=t --discovery-endpoints=e --discovery-cert=c":          "--discovery-cert and --discovery-key must both be set",
		"--discovery-token=t --discovery-endpoints=e --discovery-user=u":          "--discovery-user needs a password",
		"--discovery-token=a/b --discovery-endpoints=e":                           "--discovery-token must not contain a slash",
		"--discovery-srv-name=n":     "--discovery-srv-name has no meaning without --discovery-srv",
		"--discovery-fallback=proxy": "must be one of exit",
		"--discovery-token=t --discovery-endpoints=e --discovery-insecure-transport=sometimes":  "invalid boolean value",
		"--discovery-token=t --discovery-endpoints=e --discovery-keepalive-timeout=-1s":         "--discovery-keepalive-timeout must be >0",
		"--discovery-token=t --discovery-endpoints=e --discovery-user=u:p --discovery-key=only": "--discovery-cert and --discovery-key must both be set",
	} {
		if _, err := ParseFlags(strings.Fields(flags), nil, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", flags, err, want)
		}
	}
	r, err := ParseFlags(strings.Fields("--discovery-token=t --discovery-endpoints=a,https://b --discovery-user=u:p:q --discovery-fallback=exit"), nil, io.Discard)
	if d := r.Config.Discovery; err != nil || d.User != "u" || d.Password != "p:q" || len(d.Endpoints) != 2 {
		t.Errorf("%+v, %v", d, err)
	}
}

// If this fails, an operator who joins a member to a cluster that it does not
// fit is not told what to mend.
func TestJoiningErrors(t *testing.T) {
	m := startMember(t, nil)
	peerURL := "http://" + m.peerListeners[0].Addr().String()
	if _, err := pb.NewClusterClient(m.conn).MemberUpdate(m.ctx, &pb.MemberUpdateRequest{ID: uint64(m.self), PeerURLs: []string{peerURL}}); err != nil {
		t.Fatal(err)
	}
	join := func(cluster string) error {
		cfg := discoveryConfig(t, "late")
		cfg.InitialClusterState = ClusterExisting
		cfg.InitialCluster = cluster + ",late=" + cfg.AdvertisePeerURLs[0].String()
		_, err := runMember(t, cfg)
		return err
	}
	described := fmt.Sprintf("{ClusterID:%x Members:[&{ID:%x RaftAttributes:{PeerURLs:[%s] IsLearner:false}", m.cluster, uint64(m.self), peerURL)
	for cluster, wants := range map[string][]string{
		"default=" + peerURL:           {"error validating peerURLs " + described, "RemovedMemberIDs:[]}: member count is unequal"},
		"default=http://127.0.0.1:1":   {"cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs"},
		"default=http://127.0.0.1:bad": {"invalid port"},
	} {
		for _, want := range wants {
			if err := join(cluster); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", cluster, err, want)
			}
		}
	}
	added := must[*pb.MemberAddResponse](t)(pb.NewClusterClient(m.conn).MemberAdd(m.ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:9"}, IsLearner: true}))
	want := fmt.Sprintf("PeerURLs: no match found for existing member (%x, [http://127.0.0.1:9]), last resolver error (resolved urls:", added.Member.ID)
	if err := join("default=" + peerURL); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("a member that the flags do not know: %v, want %q", err, want)
	}
}

// If this fails, a member whose name is in the DNS under another form of its URL
// is refused, or one with a wrong URL is not.
func TestAdvertisedURLsAreComparedByAddress(t *testing.T) {
	resolver := srvtest.Start(t, "m.test. 60 IN A 127.0.0.1")
	for cluster, want := range map[string]string{
		"m=http://m.test:1":                      "",
		"m=http://m.test:2":                      `--initial-cluster has m=http://127.0.0.1:2 but missing from --initial-advertise-peer-urls=http://127.0.0.1:1 (resolved urls: "http://127.0.0.1:1" != "http://127.0.0.1:2")`,
		"m=http://m.test:1,m=http://127.0.0.1:3": "but missing from --initial-advertise-peer-urls=http://127.0.0.1:1 (len(",
	} {
		cfg := Config{Name: "m", InitialCluster: cluster, AdvertisePeerURLs: []url.URL{{Scheme: "http", Host: "127.0.0.1:1"}}, Discovery: Discovery{Resolver: resolver}}
		_, _, err := cfg.initialMembers(t.Context())
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", cluster, err, want)
		}
	}
}
