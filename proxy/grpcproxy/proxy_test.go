package grpcproxy

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/internal/srv/srvtest"
	"github.com/kvorum/kvorum/pki"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/v3electionpb"
)

// authority makes certificates for a test.
type authority struct {
	*pki.Authority
	t    *testing.T
	dir  string
	file string // its own certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	now := time.Now()
	ca, err := pki.NewAuthority("ca", pki.Validity{From: now.Add(-time.Hour), To: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{ca, t, t.TempDir(), ""}
	a.file = filepath.Join(a.dir, "ca.pem")
	if err := ca.Pair().Write(pki.Paths{Cert: a.file, Key: filepath.Join(a.dir, "ca-key.pem")}); err != nil {
		t.Fatal(err)
	}
	return a
}

// issue writes a certificate for loopback.
func (a *authority) issue(name string) (pki.Paths, tls.Certificate) {
	a.t.Helper()
	now := time.Now()
	pair, err := a.Issue(pki.Subject{CommonName: name, Hosts: []string{"127.0.0.1"}, Server: true, Client: true}, pki.Validity{From: now.Add(-time.Hour), To: now.Add(time.Hour)})
	if err != nil {
		a.t.Fatal(err)
	}
	at := pki.Paths{Cert: filepath.Join(a.dir, name+".pem"), Key: filepath.Join(a.dir, name+"-key.pem")}
	if err := pair.Write(at); err != nil {
		a.t.Fatal(err)
	}
	parsed, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		a.t.Fatal(err)
	}
	return at, parsed
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.Pair().Cert)
	return pool
}

// If this fails, a proxy between TLS on both sides lets strangers in, or nobody.
func TestTLSOnBothSides(t *testing.T) {
	members, clients := newAuthority(t), newAuthority(t)
	_, memberCert := members.issue("member")
	m := startMember(t, grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{memberCert}, ClientCAs: members.pool(), ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
	})))
	toMembers, _ := members.issue("proxy")
	toClients, _ := clients.issue("proxy")
	_, clientCert := clients.issue("client")
	p := startProxy(t, m, "--cert", toMembers.Cert, "--key", toMembers.Key, "--cacert", members.file,
		"--cert-file", toClients.Cert, "--key-file", toClients.Key, "--trusted-ca-file", clients.file)
	with := &tls.Config{RootCAs: clients.pool(), Certificates: []tls.Certificate{clientCert}, MinVersion: tls.VersionTLS12}
	ctx := testContext(t)
	if _, err := pb.NewKVClient(dial(t, p, credentials.NewTLS(with))).Put(ctx, &pb.PutRequest{Key: []byte("k")}); err != nil {
		t.Errorf("a client with a certificate: %v", err)
	}
	without := &tls.Config{RootCAs: clients.pool(), MinVersion: tls.VersionTLS12}
	if _, err := pb.NewKVClient(dial(t, p, credentials.NewTLS(without))).Put(ctx, &pb.PutRequest{Key: []byte("k")}); status.Code(err) != codes.Unavailable {
		t.Errorf("a client without a certificate: %v", err)
	}
	// A gRPC library may offer both protocols, as curl does.
	both := with.Clone()
	both.NextProtos = []string{"h2", "http/1.1"}
	if _, err := pb.NewKVClient(dial(t, p, credentials.NewTLS(both))).Put(ctx, &pb.PutRequest{Key: []byte("k")}); err != nil {
		t.Errorf("a client that offers both protocols: %v", err)
	}
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: with, ForceAttemptHTTP2: true}}
	if got := get(t, web, "https://"+p.Addr().String()+"/health"); got != `200 {"health":"true","reason":""}` {
		t.Errorf("/health over TLS: %s", got)
	}
}

// If this fails, --auto-tls serves in the clear, or makes a new certificate at
// each start.
func TestAutoTLS(t *testing.T) {
	m := startMember(t)
	dir := t.TempDir()
	var seen [][]byte
	for range 2 {
		p := startProxy(t, m, "--auto-tls", "--data-dir", dir, "--tls-min-version", "TLS1.3")
		conn, err := tls.Dial("tcp", p.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, conn.ConnectionState().PeerCertificates[0].Raw)
		_ = conn.Close()
		if _, err := tls.Dial("tcp", p.Addr().String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err == nil {
			t.Error("TLS 1.2 was accepted")
		}
	}
	if !bytes.Equal(seen[0], seen[1]) {
		t.Error("the certificate was made twice")
	}
}

func get(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.Status[:3] + " " + strings.TrimSpace(string(text))
}

// If this fails, an operator does not see that the proxy or the cluster is down.
func TestPages(t *testing.T) {
	m := startMember(t)
	p := startProxy(t, m, "--metrics-addr", "http://127.0.0.1:0", "--enable-pprof")
	for page, want := range map[string]string{
		"/health": `200 {"health":"true","reason":""}`, "/proxy/health": `200 {"health":"true","reason":""}`,
		"/proxy/metrics": "etcd_grpc_proxy_cache_keys_total", "/metrics": "503 no member gave its metrics", "/version": "404", "/debug/pprof/cmdline": "200",
	} {
		for _, at := range []string{p.Addr().String(), p.probes.listener.Addr().String()} {
			if at != p.Addr().String() && page == "/debug/pprof/cmdline" {
				want = "404"
			}
			if got := get(t, http.DefaultClient, "http://"+at+page); !strings.Contains(got, want) {
				t.Errorf("%s%s: %s, want %s", at, page, got, want)
			}
		}
	}
	dead := startProxy(t, &fakeMember{address: "127.0.0.1:1"})
	web := &http.Client{Timeout: testWait}
	if got := get(t, web, "http://"+dead.Addr().String()+"/health"); !strings.HasPrefix(got, `503 {"health":"false","reason":"RANGE ERROR:`) {
		t.Errorf("without a member: %s", got)
	}
}

// If this fails, a member that lags behind shows clients of the proxy a state
// from before the one that they have seen.
func TestSerializableReadsInOrder(t *testing.T) {
	for _, c := range []struct {
		args []string
		lags int
		want string
	}{
		{nil, 1, "1"},
		{[]string{"--experimental-serializable-ordering"}, 1, "2"},
		{[]string{"--experimental-serializable-ordering"}, 100, "2"}, // no member is up to date: ask the leader
	} {
		m := startMember(t)
		kv := pb.NewKVClient(dial(t, startProxy(t, m, c.args...)))
		ctx := testContext(t)
		for _, value := range []string{"1", "2"} {
			if _, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: []byte(value)}); err != nil {
				t.Fatal(err)
			}
		}
		m.mu.Lock()
		m.lagging = c.lags
		m.mu.Unlock()
		r, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), Serializable: true})
		if err != nil || string(r.Kvs[0].Value) != c.want {
			t.Errorf("%v, %d lagging answers: %v, %v; want %s", c.args, c.lags, r, err, c.want)
		}
	}
}

// If this fails, keep-alives of many clients are many requests, or get lost when
// the member dies.
func TestKeepAlivesShare(t *testing.T) {
	m := startMember(t)
	hold := make(chan struct{})
	m.hold = hold
	p := startProxy(t, m)
	leases := pb.NewLeaseClient(dial(t, p))
	ctx := testContext(t)
	const clients = 50
	var all sync.WaitGroup
	for range clients {
		s, err := leases.LeaseKeepAlive(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(&pb.LeaseKeepAliveRequest{ID: 5}); err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			if r, err := s.Recv(); err != nil || r.ID != 5 || r.TTL != 10 {
				t.Errorf("got %v, %v", r, err)
			}
		})
	}
	eventually(t, "the question was asked", func() bool { return m.count(&m.renewals) > 0 })
	eventually(t, "all clients wait for one answer", func() bool {
		p.renewals.mu.Lock()
		defer p.renewals.mu.Unlock()
		for _, r := range p.renewals.all {
			r.mu.Lock()
			defer r.mu.Unlock()
			return len(r.waiting[5]) == clients
		}
		return false
	})
	if n := m.count(&m.renewals); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	m.breakStreams()
	eventually(t, "the question was asked again", func() bool { return m.count(&m.renewals) == 2 })
	close(hold)
	all.Wait()
}

// If this fails, methods that the proxy does not know answer otherwise than those
// of the member.
func TestUnknownMethodsAreForwarded(t *testing.T) {
	m := startMember(t)
	p := startProxy(t, m)
	err := dial(t, p).Invoke(testContext(t), "/etcdserverpb.KV/Nope", &pb.PutRequest{}, &pb.PutResponse{})
	if want := "unknown method Nope for service etcdserverpb.KV"; status.Convert(err).Message() != want {
		t.Errorf("%v, want %q", err, want)
	}
	_, err = v3electionpb.NewElectionClient(dial(t, p)).Leader(testContext(t), &v3electionpb.LeaderRequest{Name: []byte("e")})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("%v, want that there is no such service", err)
	}
}

// If this fails, a proxy that is told a domain asks other members than those of
// the domain.
func TestMembersOfADomain(t *testing.T) {
	c := parseFlags(t, "--discovery-srv", "cluster.test", "--insecure-discovery")
	c.Resolver = srvtest.Start(t, "_etcd-client._tcp.cluster.test. 60 IN SRV 0 0 2379 a.cluster.test.", "_etcd-client-ssl._tcp.cluster.test. 60 IN SRV 0 0 2378 b.cluster.test.")
	got, err := c.findEndpoints(t.Context())
	if want := "https://b.cluster.test:2378 http://a.cluster.test:2379"; err != nil || strings.Join(got, " ") != want {
		t.Errorf("%v, %v; want %s", got, err, want)
	}
}

// If this fails, a start script written for etcd's grpc-proxy does not start this
// one, or a mistake in it goes unnoticed.
func TestFlags(t *testing.T) {
	var help strings.Builder
	if code := Main("etcd grpc-proxy start", []string{"--help"}, &help, io.Discard); code != 0 {
		t.Errorf("--help exits with %d", code)
	}
	for _, name := range strings.Fields(`advertise-client-url auto-tls cacert cert cert-file client-crl-file data-dir debug
		dial-keepalive-time dial-keepalive-timeout discovery-srv discovery-srv-name enable-pprof endpoints endpoints-auto-sync-interval
		experimental-enable-grpc-logging experimental-leasing-prefix experimental-serializable-ordering grpc-keepalive-interval
		grpc-keepalive-min-time grpc-keepalive-timeout insecure-discovery insecure-skip-tls-verify key key-file listen-addr
		listen-cipher-suites max-concurrent-streams max-recv-bytes max-send-bytes metrics-addr namespace permit-without-stream
		resolver-prefix resolver-ttl self-signed-cert-validity tls-max-version tls-min-version trusted-ca-file`) {
		if !strings.Contains(help.String(), "  -"+name+"\n") && !strings.Contains(help.String(), "  -"+name+" ") {
			t.Errorf("--%s is not defined", name)
		}
	}
	for flags, want := range map[string]string{
		"--bogus": "Error: unknown flag: --bogus", "--max-concurrent-streams=-1": "invalid value",
		"--experimental-leasing-prefix=x": leasingRefused, "--resolver-prefix=x": "invalid resolver-ttl 0",
		"--resolver-ttl=3": "invalid resolver-prefix", "--max-send-bytes=0": "--max-send-bytes and --max-recv-bytes must be >0",
		"--cert=c": "KeyFile and CertFile must both be present", "--key-file=k": "KeyFile and CertFile must both be present",
		"--trusted-ca-file=c": "need --cert-file and --key-file", "--metrics-addr=127.0.0.1:1": "is not a URL such as",
		"--metrics-addr=https://127.0.0.1:1": "needs --cert-file and --key-file", "--tls-min-version=TLS1.0": "unexpected TLS version",
		"--tls-min-version=TLS1.3 --tls-max-version=TLS1.2":         "min version (TLS1.3) is greater than max version (TLS1.2)",
		"--tls-min-version=TLS1.3 --listen-cipher-suites=TLS_X":     "cipher suites cannot be configured when only TLS1.3 is enabled",
		"--listen-cipher-suites=TLS_X":                              "unexpected TLS cipher suite",
		"--auto-tls --self-signed-cert-validity=0":                  "--self-signed-cert-validity must be at least 1 year",
		"--grpc-keepalive-interval=-1s":                             "must not be negative",
		"--endpoints=":                                              "--endpoints: no endpoint given",
		"--endpoints=ftp://h:1":                                     "the scheme must be",
		"--cacert=/nowhere":                                         "TLS towards members",
		"--cert-file=/nowhere --key-file=/nowhere":                  "TLS towards clients",
		"--listen-addr=nowhere:x":                                   "--listen-addr",
		"--metrics-addr=http://nowhere:x --listen-addr=127.0.0.1:0": "--metrics-addr",
	} {
		var failed strings.Builder
		if code := Main("etcd grpc-proxy start", strings.Fields(flags), io.Discard, &failed); code != 1 || !strings.Contains(failed.String(), want) {
			t.Errorf("%s: code %d, %q; want %q", flags, code, failed.String(), want)
		}
	}
}

// If this fails, the proxy answers from a cache that holds what is no longer true.
func TestCache(t *testing.T) {
	now := time.Unix(0, 0)
	c := newCache(func() time.Time { return now })
	ask := func(r *pb.RangeRequest) bool {
		known, q := c.get(caller{}, r)
		if known == nil {
			c.put(q, &pb.RangeResponse{})
		}
		return known != nil
	}
	one := &pb.RangeRequest{Key: []byte("b")}
	wide := &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("c")}
	open := &pb.RangeRequest{Key: []byte("b"), RangeEnd: []byte{0}}
	old := &pb.RangeRequest{Key: []byte("b"), Revision: 5}
	all := []*pb.RangeRequest{one, wide, open, old}
	for _, step := range []struct {
		name  string
		do    func()
		known []bool // of all, afterwards
	}{
		{"nothing yet", func() {}, []bool{false, false, false, false}},
		{"all asked", func() {}, []bool{true, true, true, true}},
		{"b written", func() { c.forget(span{key: []byte("b")}) }, []bool{false, false, false, true}},
		{"c written", func() { c.forget(span{key: []byte("c")}) }, []bool{true, true, false, true}},
		{"a to b deleted", func() { c.forget(span{[]byte("a"), []byte("b")}) }, []bool{true, false, true, true}},
		{"all from bb on deleted", func() { c.forget(span{[]byte("bb"), []byte{0}}) }, []bool{true, false, false, true}},
		{"compacted at 5", func() { c.compact(5) }, []bool{true, true, true, true}},
		{"compacted at 6", func() { c.compact(6) }, []bool{true, true, true, false}},
		{"still compacted", func() {}, []bool{true, true, true, false}},
		{"time passed", func() { now = now.Add(cacheAgeMax) }, []bool{false, false, false, false}},
	} {
		step.do()
		for i, r := range all {
			if got := ask(r); got != step.known[i] {
				t.Errorf("%s: question %d is known: %t", step.name, i, got)
			}
		}
	}
	// A write that comes while a member is being asked.
	_, q := c.get(caller{token: "x"}, one)
	c.forget(everything())
	c.put(q, &pb.RangeResponse{})
	if known, _ := c.get(caller{token: "x"}, one); known != nil {
		t.Error("an answer from before a write was kept")
	}
	for i := range 2 * cacheAnswersMax {
		ask(&pb.RangeRequest{Key: []byte("k"), Limit: int64(i)})
	}
	if n, _, _ := c.stats(); n != cacheAnswersMax {
		t.Errorf("%d answers, want at most %d", n, cacheAnswersMax)
	}
	if !ask(&pb.RangeRequest{Key: []byte("k"), Limit: 2*cacheAnswersMax - 1}) || ask(&pb.RangeRequest{Key: []byte("k"), Limit: 1}) {
		t.Error("not the oldest answers were dropped")
	}
}

// If this fails, a range of a tenant reaches into the keys of another.
func TestNamespaceEnds(t *testing.T) {
	for _, c := range []struct{ ns, end, want string }{
		{"a/", "\x00", "a0"}, {"a\xff", "\x00", "b"}, {"\xff\xff", "\x00", "\x00"}, {"a/", "x", "a/x"}, {"a/", "", ""}, {"", "\x00", "\x00"},
	} {
		if got := namespace(c.ns).end([]byte(c.end)); string(got) != c.want {
			t.Errorf("namespace %q, end %q: %q, want %q", c.ns, c.end, got, c.want)
		}
	}
}

// If this fails, a member that was added later is never asked.
func TestEndpointsFollowTheMembers(t *testing.T) {
	m := startMember(t)
	m.clientURLs = []string{"http://" + m.address, "http://127.0.0.1:1"}
	p := startProxy(t, m, "--endpoints-auto-sync-interval", "10ms")
	eventually(t, "the proxy knows both members", func() bool { return slices.Equal(p.client.Endpoints(), m.clientURLs) })
}
