package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/pki"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server/api"
	"github.com/kvorum/kvorum/server/secure"
)

const testTimeout = 60 * time.Second

// certs is a folder with an authority and certificates.
type certs struct {
	t   *testing.T
	dir string
	ca  *pki.Authority
}

func newCerts(t *testing.T) *certs {
	c := &certs{t: t, dir: t.TempDir()}
	c.ca = c.authority()
	c.write("ca.pem", c.ca.Pair().Cert)
	c.store("m1", c.ca)
	return c
}

func validNow() pki.Validity {
	return pki.Validity{From: time.Now().Add(-time.Minute), To: time.Now().Add(time.Hour)}
}

func (c *certs) authority() *pki.Authority {
	c.t.Helper()
	ca, err := pki.NewAuthority("test-ca", validNow())
	if err != nil {
		c.t.Fatal(err)
	}
	return ca
}

func (c *certs) file(name string) string { return filepath.Join(c.dir, name) }

func (c *certs) write(name string, content []byte) {
	c.t.Helper()
	if err := os.WriteFile(c.file(name), content, 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// store issues a certificate for loopback and puts it in the folder.
func (c *certs) store(name string, ca *pki.Authority) {
	c.t.Helper()
	pair, err := ca.Issue(pki.Subject{CommonName: name, Hosts: []string{"127.0.0.1", "localhost"}, Server: true, Client: true}, validNow())
	if err == nil {
		err = pair.Write(pki.Paths{Cert: c.file(name + ".pem"), Key: c.file(name + "-key.pem")})
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// mutual is the flags of a side that wants certificates.
func (c *certs) mutual() TransportSecurity {
	return TransportSecurity{CertFile: c.file("m1.pem"), KeyFile: c.file("m1-key.pem"), TrustedCAFile: c.file("ca.pem"), ClientCertAuth: true}
}

// dialer trusts the authorities and shows a certificate of signer.
func (c *certs) dialer(name string, signer *pki.Authority, trusted ...*pki.Authority) *tls.Config {
	c.t.Helper()
	pair, err := signer.Issue(pki.Subject{CommonName: name, Client: true}, validNow())
	if err != nil {
		c.t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		c.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	for _, ca := range trusted {
		pool.AppendCertsFromPEM(ca.Pair().Cert)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// startTLSMember runs a member in this process until the test ends.
func startTLSMember(t *testing.T, change func(*Config)) *Server {
	t.Helper()
	s, _ := startTLSMemberLogged(t, change)
	return s
}

// startTLSMemberLogged is startTLSMember with what the member logs.
func startTLSMemberLogged(t *testing.T, change func(*Config)) (*Server, *logText) {
	t.Helper()
	cfg := DefaultConfig()
	cfg.DataDir = t.TempDir()
	cfg.ListenClientURLs, cfg.AdvertiseClientURLs = mustURLs("https://127.0.0.1:0"), mustURLs("https://127.0.0.1:1")
	cfg.ListenPeerURLs, cfg.AdvertisePeerURLs = mustURLs("http://127.0.0.1:0"), mustURLs("http://127.0.0.1:1")
	change(&cfg)
	log := &logText{}
	s, err := New(context.Background(), cfg, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("member stopped: %v", err)
		}
	})
	return s, log
}

func (s *Server) testEndpoint() string { return "https://" + s.clientListeners[0].Addr().String() }

func newClient(t *testing.T, c *tls.Config, endpoints ...string) *client.Client {
	t.Helper()
	cl, err := client.New(client.Config{Endpoints: endpoints, TLS: c})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close() })
	return cl
}

func putOver(ctx context.Context, c *client.Client, key string) error {
	ctx, cancel := context.WithTimeout(ctx, testTimeout)
	defer cancel()
	_, err := c.KV.Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte("v")})
	return err
}

// If this fails, gRPC clients, curl and browsers cannot share the TLS port, or
// the user in a client's certificate is not seen.
func TestOnePortUnderTLS(t *testing.T) {
	c := newCerts(t)
	files, err := secure.Open(secure.Options{
		CertFile: c.file("m1.pem"), KeyFile: c.file("m1-key.pem"), TrustedCAFile: c.file("ca.pem"), ClientCertAuth: true,
		Protocols: []string{protoHTTP2, protoHTTP1}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	address, served := servePort(t, files)
	dial := c.dialer("alice", c.ca, c.ca)
	for _, offers := range [][]string{{"h2"}, {"h2", "http/1.1"}} {
		config := dial.Clone()
		config.NextProtos = offers
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
		defer cancel()
		answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
		if err != nil || answer.Status != healthpb.HealthCheckResponse_SERVING {
			t.Fatalf("gRPC of a client that offers %v: %v", offers, err)
		}
		if name := <-served; name != "alice" {
			t.Errorf("common name %q for a client that offers %v", name, offers)
		}
	}
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		web := &http.Client{Transport: &http.Transport{TLSClientConfig: dial.Clone(), ForceAttemptHTTP2: proto == "HTTP/2.0"}}
		answer, err := web.Get("https://" + address + "/health")
		if err != nil {
			t.Fatalf("%s: %v", proto, err)
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.Proto != proto || string(body) != "fine" {
			t.Errorf("%s %q, want %s and fine", answer.Proto, body, proto)
		}
		web.CloseIdleConnections()
	}
	answer, err := http.Get("http://" + address + "/health")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusBadRequest {
		t.Errorf("HTTP in the clear on the TLS port: %s", answer.Status)
	}
}

// whoAsks is a gRPC service that tells the common name of each caller.
type whoAsks struct {
	healthpb.UnimplementedHealthServer
	names chan string
}

func (w whoAsks) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	w.names <- api.CommonName(ctx)
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

// servePort serves gRPC and HTTP on one port, as a member does.
func servePort(t *testing.T, files *secure.Files) (address string, served <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	names := make(chan string, 1)
	g := grpc.NewServer(grpc.Creds(handshaken{insecure.NewCredentials()}))
	healthpb.RegisterHealthServer(g, whoAsks{names: names})
	s := newSplitter(listener{Listener: l, tls: files.Server()}, "client", slog.New(slog.DiscardHandler))
	s.grpc = newBranch(l)
	web := &http.Server{ReadHeaderTimeout: time.Minute, Handler: grpcByContentType(g, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "fine") }))}
	var group sync.WaitGroup
	group.Go(func() { _ = s.run(context.Background()) })
	group.Go(func() { _ = g.Serve(s.grpc) })
	group.Go(func() { _ = web.Serve(s.http) })
	t.Cleanup(func() {
		l.Close()
		g.Stop()
		web.Close()
		group.Wait()
	})
	return l.Addr().String(), names
}

// If this fails, renewing certificates or replacing the authority of a running
// cluster fails requests, drops watches or needs a restart.
func TestAuthorityIsReplacedUnderLoad(t *testing.T) {
	c := newCerts(t)
	s := startTLSMember(t, func(cfg *Config) { cfg.ClientTLS = c.mutual() })
	next := c.authority()
	// Clients are told of the new authority first, as docs/tls.md says.
	oldDial, newDial := c.dialer("old", c.ca, c.ca, next), c.dialer("new", next, c.ca, next)

	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	watch := rawWatch(ctx, t, s, oldDial)
	load := func(dial *tls.Config, step string) {
		t.Helper()
		for i := range 10 { // each with a connection of its own
			cl := newClient(t, dial, s.testEndpoint())
			if err := putOver(ctx, cl, "k"+step+fmt.Sprint(i)); err != nil {
				t.Fatalf("%s: %v", step, err)
			}
		}
		for seen := 0; seen < 10; {
			r, err := watch.Recv()
			if err != nil {
				t.Fatalf("%s: the watch ended: %v", step, err)
			}
			seen += len(r.Events)
		}
	}
	load(oldDial, "before")
	c.write("ca.pem", slices.Concat(c.ca.Pair().Cert, next.Pair().Cert))
	load(oldDial, "both-trusted")
	load(newDial, "both-trusted-new")
	c.store("m1", next)
	load(oldDial, "new-server-certificate")
	load(newDial, "new-server-certificate-new")
	c.write("ca.pem", next.Pair().Cert)
	load(newDial, "old-dropped")

	refused, err := tls.Dial("tcp", s.clientListeners[0].Addr().String(), oldDial)
	if err == nil {
		_, err = refused.Read(make([]byte, 1))
		refused.Close()
	}
	if err == nil {
		t.Error("a client of the old authority is let in after it was dropped")
	}
}

// rawWatch watches k… on a stream that nobody resumes.
func rawWatch(ctx context.Context, t *testing.T, s *Server, dial *tls.Config) pb.Watch_WatchClient {
	t.Helper()
	conn, err := grpc.NewClient(s.clientListeners[0].Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(dial)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	watch, err := pb.NewWatchClient(conn).Watch(ctx, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	create := &pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l")}
	if err := watch.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		t.Fatal(err)
	}
	if r, err := watch.Recv(); err != nil || !r.Created {
		t.Fatalf("watch: %v, %v", r, err)
	}
	return watch
}

// silent is a connection that never says a word, and a listener that brings it.
type silent struct {
	conns chan net.Conn
	addr  net.Addr
}

func (l *silent) Accept() (net.Conn, error) {
	c, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (l *silent) Close() error   { return nil }
func (l *silent) Addr() net.Addr { return l.addr }

// If this fails, clients that connect and stay silent hold memory for ever or
// keep others out.
func TestSilentClientsAreSentAway(t *testing.T) {
	c := newCerts(t)
	files, err := secure.Open(secure.Options{CertFile: c.file("m1.pem"), KeyFile: c.file("m1-key.pem"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for name, config := range map[string]*tls.Config{"TLS": files.Server(), "clear": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &silent{conns: make(chan net.Conn), addr: &net.TCPAddr{}}
				s := newSplitter(listener{Listener: l, tls: config}, "client", slog.New(slog.DiscardHandler))
				s.grpc = newBranch(l)
				done := make(chan error, 1)
				go func() { done <- s.run(t.Context()) }()
				began := time.Now()
				var clients []net.Conn
				for i := range 100 {
					ours, theirs := net.Pipe()
					l.conns <- theirs // taken at once, though those before are silent
					clients = append(clients, ours)
					if config != nil && i%2 == 0 {
						_, _ = ours.Write([]byte{0x16}) // the first byte of a handshake, then nothing
					}
				}
				if took := time.Since(began); took > 0 {
					t.Errorf("accepting waited %s for silent clients", took)
				}
				for _, ours := range clients {
					if _, err := io.Copy(io.Discard, ours); err != nil {
						t.Errorf("not closed: %v", err)
					}
				}
				if took := time.Since(began); took > sniffTimeout {
					t.Errorf("held for %s", took)
				}
				close(l.conns)
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// If this fails, --auto-tls shows a certificate that clients of etcd's would not
// know, or a new one at every start.
func TestAutoTLS(t *testing.T) {
	dir := t.TempDir()
	s := startTLSMember(t, func(cfg *Config) { cfg.DataDir, cfg.ClientTLS.Auto = dir, true })
	conn, err := tls.Dial("tcp", s.clientListeners[0].Addr().String(), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // nobody stands behind it
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cert := conn.ConnectionState().PeerCertificates[0]
	if !slices.Equal(cert.Subject.Organization, []string{"etcd"}) || cert.VerifyHostname("127.0.0.1") != nil || time.Until(cert.NotAfter) < 364*24*time.Hour {
		t.Errorf("subject %s, hosts %v, until %s", cert.Subject, cert.IPAddresses, cert.NotAfter)
	}
	at := filepath.Join(dir, "fixtures", "client", "cert.pem")
	before, err := os.ReadFile(at)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.autoCertificate("client", []string{"127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.ReadFile(at); string(after) != string(before) {
		t.Error("a new certificate although the old one is valid")
	}
}

// If this fails, a cluster whose members call each other under mutual TLS cannot
// elect, replicate, or ask its leader about leases; or a stranger can read its
// members.
func TestThreeMembersUnderMutualTLS(t *testing.T) {
	c := newCerts(t)
	addresses := freeAddresses(t, 3)
	names := []string{"m1", "m2", "m3"}
	var initial []string
	for i, name := range names {
		c.store(name, c.ca)
		initial = append(initial, name+"=https://"+addresses[i])
	}
	var members []*Server
	for i, name := range names {
		members = append(members, startTLSMember(t, func(cfg *Config) {
			cfg.Name, cfg.InitialCluster = name, strings.Join(initial, ",")
			cfg.ListenPeerURLs, cfg.AdvertisePeerURLs = mustURLs("https://"+addresses[i]), mustURLs("https://"+addresses[i])
			cfg.ClientTLS, cfg.PeerTLS = c.mutual(), c.mutual()
			cfg.PeerTLS.CertFile, cfg.PeerTLS.KeyFile = c.file(name+".pem"), c.file(name+"-key.pem")
			cfg.PeerTLS.AllowedCNs = names
		}))
	}
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	dial := c.dialer("root", c.ca, c.ca)
	lease, err := newClient(t, dial, members[0].testEndpoint()).Leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 100})
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range members {
		cl := newClient(t, dial, m.testEndpoint())
		if err := putOver(ctx, cl, fmt.Sprint("k", i)); err != nil {
			t.Errorf("put at %s: %v", names[i], err)
		}
		if left, err := cl.Leases.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: lease.ID}); err != nil || left.TTL <= 0 {
			t.Errorf("lease at %s: %v, %v", names[i], left, err)
		}
	}
	for _, who := range []struct {
		name string
		ok   bool
	}{{"m2", true}, {"mallory", false}} {
		config := c.dialer(who.name, c.ca, c.ca)
		web := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
		answer, err := web.Get("https://" + addresses[0] + "/members")
		var list []peerMember
		if err == nil {
			err = json.NewDecoder(answer.Body).Decode(&list)
			answer.Body.Close()
		}
		if (err == nil && len(list) == 3) != who.ok {
			t.Errorf("%s reads the members: %v, %v", who.name, list, err)
		}
		web.CloseIdleConnections()
	}
}

func freeAddresses(t *testing.T, n int) []string {
	t.Helper()
	var all []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		all = append(all, l.Addr().String())
	}
	return all
}

// If this fails, members and clients of one machine cannot talk over socket
// files under TLS.
func TestUnixSocketsUnderTLS(t *testing.T) {
	c := newCerts(t)
	dir, err := os.MkdirTemp("", "kvorum") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	peers := []string{"unixs://" + dir + "/p1:1", "unixs://" + dir + "/p2:1"}
	clients := []string{"unixs://" + dir + "/c1:1", "unixs://" + dir + "/c2:1"}
	for i := range peers {
		startTLSMember(t, func(cfg *Config) {
			cfg.Name, cfg.InitialCluster = fmt.Sprint("m", i), "m0="+peers[0]+",m1="+peers[1]
			cfg.ListenPeerURLs, cfg.AdvertisePeerURLs = mustURLs(peers[i]), mustURLs(peers[i])
			cfg.ListenClientURLs, cfg.AdvertiseClientURLs = mustURLs(clients[i]), mustURLs(clients[i])
			cfg.ClientTLS, cfg.PeerTLS = c.mutual(), c.mutual()
		})
	}
	dial := c.dialer("root", c.ca, c.ca)
	dial.ServerName = "localhost"
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	for _, endpoint := range clients {
		if err := putOver(ctx, newClient(t, dial, endpoint), "k"); err != nil {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}

// If this fails, a socket file's name is lost on the way from a flag.
func TestSecureSchemes(t *testing.T) {
	for text, want := range map[string]bool{"https://a:1": true, "unixs://a:1": true, "http://a:1": false, "unix:///a": false} {
		u, err := url.Parse(text)
		if err != nil || isSecure(*u) != want {
			t.Errorf("%s: secure %t, %v", text, isSecure(*u), err)
		}
	}
}
