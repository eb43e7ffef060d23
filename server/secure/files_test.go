package secure

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/pki"
)

// world is an authority, the files of a server and what it logs.
type world struct {
	t    *testing.T
	dir  string
	ca   *pki.Authority
	log  bytes.Buffer
	opts Options
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir(), ca: authority(t)}
	server := w.paths("server")
	w.store("server", w.issue(w.ca, member("127.0.0.1")))
	w.write("ca.pem", w.ca.Pair().Cert)
	w.opts = Options{CertFile: server.Cert, KeyFile: server.Key, TrustedCAFile: w.file("ca.pem"), ClientCertAuth: true, Log: slog.New(slog.NewTextHandler(&w.log, nil))}
	return w
}

func authority(t *testing.T) *pki.Authority {
	ca, err := pki.NewAuthority("test-ca", hours(-1, 100))
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func hours(from, to int) pki.Validity {
	now := time.Now()
	return pki.Validity{From: now.Add(time.Duration(from) * time.Hour), To: now.Add(time.Duration(to) * time.Hour)}
}

func member(hosts ...string) pki.Subject {
	return pki.Subject{CommonName: "m1", Hosts: hosts, Server: true, Client: true}
}

func (w *world) file(name string) string { return filepath.Join(w.dir, name) }
func (w *world) paths(name string) pki.Paths {
	return pki.Paths{Cert: w.file(name + ".pem"), Key: w.file(name + "-key.pem")}
}

func (w *world) write(name string, content []byte) {
	w.t.Helper()
	if err := os.WriteFile(w.file(name), content, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) store(name string, p pki.Pair) {
	w.t.Helper()
	if err := p.Write(w.paths(name)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) issue(ca *pki.Authority, s pki.Subject) pki.Pair {
	w.t.Helper()
	pair, err := ca.Issue(s, hours(-1, 10))
	if err != nil {
		w.t.Fatal(err)
	}
	return pair
}

func (w *world) open() *Files {
	w.t.Helper()
	f, err := Open(w.opts)
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

// trusting is a client that trusts the CAs and shows cert, if any.
func (w *world) trusting(cert *pki.Pair, cas ...*pki.Authority) *tls.Config {
	w.t.Helper()
	c := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
	for _, ca := range cas {
		c.RootCAs.AppendCertsFromPEM(ca.Pair().Cert)
	}
	if cert != nil {
		c.Certificates = []tls.Certificate{w.parse(*cert)}
	}
	return c
}

func (w *world) parse(p pki.Pair) tls.Certificate {
	w.t.Helper()
	pair, err := tls.X509KeyPair(p.Cert, p.Key)
	if err != nil {
		w.t.Fatal(err)
	}
	return pair
}

// outcome is how a handshake over loopback ended, on both sides.
type outcome struct {
	server, client error
	state          tls.ConnectionState // the client's
}

func (w *world) shake(server, client *tls.Config) (o outcome) {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		raw, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer raw.Close()
		_ = raw.SetDeadline(time.Now().Add(10 * time.Second))
		c := tls.Server(raw, server)
		if err = c.HandshakeContext(context.Background()); err == nil {
			_, err = c.Write([]byte("x"))
		}
		done <- err
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(10 * time.Second))
	c := tls.Client(raw, client)
	if o.client = c.Handshake(); o.client == nil { // with TLS 1.3 a refusal comes with the first read
		_, o.client = c.Read(make([]byte, 1))
	}
	o.state = c.ConnectionState()
	o.server = <-done
	return o
}

// If this fails, someone without a good certificate is let in, or someone with
// one is not.
func TestWhoIsLetIn(t *testing.T) {
	w := newWorld(t)
	other := authority(t)
	good, anonymous := w.issue(w.ca, member("127.0.0.1", "m1.example")), w.issue(w.ca, pki.Subject{CommonName: "m2", Client: true})
	expired, err := w.ca.Issue(member(), hours(-10, -1))
	if err != nil {
		t.Fatal(err)
	}
	stranger, serverOnly := w.issue(other, member("127.0.0.1")), w.issue(w.ca, pki.Subject{CommonName: "m1", Server: true})
	crl, err := w.ca.Revoke([]*big.Int{w.parse(anonymous).Leaf.SerialNumber}, hours(-1, 1))
	if err != nil {
		t.Fatal(err)
	}
	w.write("crl.pem", crl)
	var (
		required   = func(*Options) {}
		optional   = func(o *Options) { o.ClientCertAuth = false }
		names      = func(o *Options) { o.AllowedCNs = []string{"x", "m1"} }
		otherNames = func(o *Options) { o.AllowedCNs = []string{"m3"} }
		hosts      = func(o *Options) { o.AllowedHostnames = []string{"x.example", "m1.example"} }
		otherHosts = func(o *Options) { o.AllowedHostnames = []string{"m9.example"} }
		revoking   = func(o *Options) { o.CRLFile = w.file("crl.pem") }
	)
	for _, c := range []struct {
		name  string
		rules func(*Options)
		shows *pki.Pair
		want  string // in the server's error; "" is let in
	}{
		{"good", required, &good, ""},
		{"none", required, nil, "didn't provide a certificate"},
		{"wrong authority", required, &stranger, "unknown authority"},
		{"expired", required, &expired, "expired"},
		{"not for clients", required, &serverOnly, "incompatible key usage"},
		{"none where it is optional", optional, nil, ""},
		{"bad one where it is optional", optional, &stranger, "unknown authority"},
		{"allowed name", names, &good, ""},
		{"other name", otherNames, &good, "client certificate authentication failed"},
		{"allowed host", hosts, &good, ""},
		{"other host", otherHosts, &good, "client certificate authentication failed"},
		{"no name at all", func(o *Options) { optional(o); names(o) }, nil, "client certificate authentication failed"},
		{"revoked", revoking, &anonymous, "certificate is revoked"},
		{"not revoked", revoking, &good, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			ww := *w
			ww.t = t
			c.rules(&ww.opts)
			server := ww.open().Server()
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				client := ww.trusting(c.shows, ww.ca)
				client.MaxVersion = version
				o := ww.shake(server, client)
				switch {
				case c.want == "" && (o.server != nil || o.client != nil):
					t.Errorf("%s: refused: %v, %v", tls.VersionName(version), o.server, o.client)
				case c.want != "" && (o.server == nil || !strings.Contains(o.server.Error(), c.want) || o.client == nil):
					t.Errorf("%s: server %v, client %v; want a refusal with %q", tls.VersionName(version), o.server, o.client, c.want)
				}
			}
		})
	}
}

// If this fails, a stolen member certificate works from any machine, or a
// member with names instead of addresses cannot join.
func TestPeersCallFromTheirAddress(t *testing.T) {
	w := newWorld(t)
	w.opts.CheckRemote = true
	server := w.open().Server()
	for _, c := range []struct {
		hosts []string
		want  string
	}{
		{[]string{"127.0.0.1"}, ""},
		{[]string{"10.9.9.9"}, "does not match any of IPAddresses"},
		{[]string{"10.9.9.9", "localhost"}, ""},
		{[]string{"*.kvorum.invalid"}, `"127.0.0.1" does not match any of DNSNames ["*.kvorum.invalid"]`},
		{nil, ""},
	} {
		cert := w.issue(w.ca, member(c.hosts...))
		o := w.shake(server, w.trusting(&cert, w.ca))
		if (c.want == "") != (o.server == nil) || (o.server != nil && !strings.Contains(o.server.Error(), c.want)) {
			t.Errorf("%v: %v, want %q", c.hosts, o.server, c.want)
		}
	}
}

// If this fails, an operator must restart members to renew a certificate, to
// replace an authority or to lock someone out.
func TestFilesAreFollowed(t *testing.T) {
	w := newWorld(t)
	mine := w.issue(w.ca, member("127.0.0.1"))
	list := func(serials ...*big.Int) []byte {
		text, err := w.ca.Revoke(serials, hours(-1, 1))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	w.opts.CRLFile = w.file("crl.pem")
	w.write("crl.pem", list())
	files := w.open()
	server := files.Server()
	first := w.shake(server, w.trusting(&mine, w.ca))
	if first.server != nil {
		t.Fatal(first.server)
	}

	next := authority(t)
	w.store("server", w.issue(next, member("127.0.0.1")))
	if o := w.shake(server, w.trusting(&mine, next)); o.server != nil || o.state.PeerCertificates[0].SerialNumber.Cmp(first.state.PeerCertificates[0].SerialNumber) == 0 {
		t.Errorf("the new certificate is not shown: %v, %v", o.server, o.client)
	}
	if dialing := files.Client(); !bytes.Equal(dialing.Certificates[0].Certificate[0], w.parse(w.readPair("server")).Certificate[0]) {
		t.Error("the old certificate is shown when we dial")
	}

	theirs := w.issue(next, member("127.0.0.1"))
	if o := w.shake(server, w.trusting(&theirs, next)); o.server == nil {
		t.Error("a caller of the new authority is let in before the authority is trusted")
	}
	w.write("ca.pem", append(w.ca.Pair().Cert, next.Pair().Cert...))
	for _, cert := range []pki.Pair{mine, theirs} {
		if o := w.shake(server, w.trusting(&cert, next)); o.server != nil {
			t.Errorf("both authorities are trusted: %v", o.server)
		}
	}
	w.write("crl.pem", list(w.parse(mine).Leaf.SerialNumber))
	if o := w.shake(server, w.trusting(&mine, next)); o.server == nil || !strings.Contains(o.server.Error(), "revoked") {
		t.Errorf("revoked while the member runs: %v", o.server)
	}
	w.write("ca.pem", next.Pair().Cert)
	if o := w.shake(server, w.trusting(&mine, next)); o.server == nil {
		t.Error("a caller of the old authority is let in after it was dropped")
	}
}

func (w *world) readPair(name string) pki.Pair {
	w.t.Helper()
	p, err := pki.ReadPair(w.paths(name))
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// If this fails, a half-written certificate file makes a member deaf, or fills
// its log.
func TestBrokenFilesLeaveTheGoodOnes(t *testing.T) {
	w := newWorld(t)
	mine := w.issue(w.ca, member("127.0.0.1"))
	server := w.open().Server()
	w.write("server.pem", []byte("-----BEGIN CERTIFICATE-----\n"))
	w.write("ca.pem", nil)
	for range 3 {
		if o := w.shake(server, w.trusting(&mine, w.ca)); o.server != nil {
			t.Fatalf("refused: %v", o.server)
		}
	}
	if err := os.Remove(w.file("ca.pem")); err != nil {
		t.Fatal(err)
	}
	if o := w.shake(server, w.trusting(&mine, w.ca)); o.server != nil {
		t.Fatalf("refused: %v", o.server)
	}
	if n := strings.Count(w.log.String(), "stay in force"); n != 3 {
		t.Errorf("%d complaints, want one about the certificate, one about the empty and one about the missing authority:\n%s", n, w.log.String())
	}
	w.opts.TrustedCAFile = w.file("ca.pem")
	if _, err := Open(w.opts); err == nil {
		t.Error("a member starts without the authority that it was told to trust")
	}
}

// If this fails, a member or a tool that starts in the moment in which its
// certificate is replaced gives up, though a retry would do.
func TestOpeningWhileFilesAreReplaced(t *testing.T) {
	w := newWorld(t)
	first, second := w.issue(w.ca, member("127.0.0.1")), w.issue(w.ca, member("127.0.0.1"))
	w.store("server", first)
	w.write("server-key.pem", second.Key) // half of the way
	opened := make(chan error, 1)
	go func() {
		_, err := Open(w.opts)
		opened <- err
	}()
	select {
	case err := <-opened:
		t.Fatalf("gave up at once: %v", err)
	case <-time.After(2 * rereadAfter):
	}
	w.write("server.pem", second.Cert)
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	w.write("server-key.pem", first.Key)
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{"server.pem", "server-key.pem"} {
		if err := os.Chtimes(w.file(name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	started := time.Now()
	if _, err := Open(w.opts); err == nil || time.Since(started) > settledAfter {
		t.Errorf("files that do not fit and that nobody changes: %v after %s", err, time.Since(started))
	}
}

// If this fails, an old protocol or a weak cipher that was switched off can be
// negotiated.
func TestVersionsAndCiphers(t *testing.T) {
	w := newWorld(t)
	mine := w.issue(w.ca, member("127.0.0.1"))
	const suite, otherSuite = tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
	w.opts.CipherSuites, w.opts.MaxVersion = []uint16{suite}, tls.VersionTLS12
	server := w.open().Server()
	client := w.trusting(&mine, w.ca)
	if o := w.shake(server, client); o.server != nil || o.state.CipherSuite != suite || o.state.Version != tls.VersionTLS12 {
		t.Errorf("%v: %s with %s", o.server, tls.VersionName(o.state.Version), tls.CipherSuiteName(o.state.CipherSuite))
	}
	client.CipherSuites = []uint16{otherSuite}
	if o := w.shake(server, client); o.server == nil {
		t.Error("a suite that is not on the list was taken")
	}
	w.opts.CipherSuites, w.opts.MinVersion, w.opts.MaxVersion = nil, tls.VersionTLS13, 0
	client.MaxVersion = tls.VersionTLS12
	if o := w.shake(w.open().Server(), client); o.server == nil {
		t.Error("TLS 1.2 was taken by a member for TLS 1.3 only")
	}
}

// BenchmarkHandshakeFiles is what following the files adds to a handshake.
func BenchmarkHandshakeFiles(b *testing.B) {
	t := &testing.T{}
	dir := b.TempDir()
	w := &world{t: t, dir: dir, ca: authority(t)}
	w.store("server", w.issue(w.ca, member("127.0.0.1")))
	w.write("ca.pem", w.ca.Pair().Cert)
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{"server.pem", "server-key.pem", "ca.pem"} {
		if err := os.Chtimes(w.file(name), old, old); err != nil {
			b.Fatal(err)
		}
	}
	at := w.paths("server")
	f, err := Open(Options{CertFile: at.Cert, KeyFile: at.Key, TrustedCAFile: w.file("ca.pem"), ClientCertAuth: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	hello := &tls.ClientHelloInfo{Conn: here}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.forCaller(hello); err != nil {
			b.Fatal(err)
		}
	}
}
