package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

// rawConn sends requests byte by byte as they are written down.
type rawConn struct {
	t *testing.T
	net.Conn
	in *bufio.Reader
}

func rawDial(t *testing.T, address string, secure *tls.Config) *rawConn {
	t.Helper()
	var conn net.Conn
	var err error
	if secure == nil {
		conn, err = (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	} else {
		conn, err = (&tls.Dialer{Config: secure}).DialContext(t.Context(), "tcp", address)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(2 * testWait))
	return &rawConn{t, conn, bufio.NewReader(conn)}
}

func (c *rawConn) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

// answer reads the answer to a method.
func (c *rawConn) answer(method string) (r *http.Response, body string) {
	c.t.Helper()
	r, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		c.t.Fatal(err)
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return r, string(b)
}

// rawV2 is a request on keys.
func rawV2(method, target, form string) string {
	if method == http.MethodGet || method == http.MethodDelete {
		return fmt.Sprintf("%s /v2/keys%s HTTP/1.1\r\nHost: x\r\n\r\n", method, target)
	}
	return fmt.Sprintf("%s /v2/keys%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", method, target, len(form), form)
}

// randomV2 draws a request, of the kinds that clients send and of others.
func randomV2(r *rand.Rand) (method, request string) {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	method = pick("GET", "GET", "PUT", "PUT", "PUT", "POST", "DELETE")
	form := url.Values{}
	if method == "PUT" || method == "POST" {
		form.Set("value", pick("", "x", "a b+c%&=;", "<ü>", strings.Repeat("long ", 1000)))
	}
	for range r.IntN(3) {
		name := pick("dir", "recursive", "quorum", "sorted", "prevExist", "prevValue", "prevIndex", "refresh", "noValueOnSuccess", "wait", "other")
		form.Set(name, pick("true", "true", "false", "0", "x", "", "7"))
	}
	if r.IntN(8) == 0 {
		form.Set("ttl", pick("", "x", "1000000")) // nothing ends while the test runs
	}
	if method == "GET" {
		form.Del("wait")
	}
	target, body := pick("", "/", "/a", "/b", "/d", "/d/a", "/d/b/", "/d/e/f", "/_h", "/d/_h/x", "/d//a", "/%64", "/d/../a"), form.Encode()
	if method == "GET" || method == "DELETE" || r.IntN(4) == 0 {
		target, body = target+"?"+body, pick("", "", "value=y", "a;b", "%zz")
	}
	return method, rawV2(method, target, body)
}

var passing = regexp.MustCompile(`"(expiration":"[^"]*|ttl":[0-9]+)`)

// If this fails, a client gets one answer or another by the way that its request
// takes through the server.
func TestDirectAnswersAreThoseOfNetHTTP(t *testing.T) {
	const requests = 2000
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	direct := startMember(t, nil)
	other := startMember(t, func(cfg *Config) { cfg.HostWhitelist = []string{"x"} })
	var conns [2]*rawConn
	for i, m := range []*testMember{direct, other} {
		m.awaitServing()
		conns[i] = rawDial(t, m.clientListeners[0].Addr().String(), nil)
	}
	for range requests {
		method, request := randomV2(r)
		var got [2]string
		for i, c := range conns {
			c.send(request)
			a, body := c.answer(method)
			header := maps.Clone(a.Header)
			for _, name := range []string{"Date", "Content-Length", "X-Raft-Index", "X-Raft-Term", "X-Etcd-Cluster-Id"} {
				if a.StatusCode < 300 && name != "Content-Length" && header.Get(name) == "" {
					t.Fatalf("%s: no %s", request, name)
				}
				header.Del(name)
			}
			got[i] = fmt.Sprintf("%s %s %v %s", a.Proto, a.Status, header, passing.ReplaceAllString(body, ""))
			if a.Close {
				_ = c.Close()
				conns[i] = rawDial(t, c.RemoteAddr().String(), nil)
			}
		}
		if got[0] != got[1] {
			t.Fatalf("%s\nis answered\n%.1000s\nby net/http\n%.1000s", request, got[0], got[1])
		}
		if r.IntN(20) == 0 { // the first that is not plain ends what is direct
			conns[0] = rawDial(t, conns[0].RemoteAddr().String(), nil)
		}
	}
}

// If this fails, plain requests take the slow way, or others that follow on
// their connection are lost, out of order or not understood.
func TestConnectionGoesOnByNetHTTP(t *testing.T) {
	m := startMember(t, nil)
	m.awaitServing()
	c := rawDial(t, m.clientListeners[0].Addr().String(), nil)
	long := strings.Repeat("v", 4<<10)
	for _, b := range []byte(rawV2("PUT", "/a", "value="+long)) {
		c.send(string(b))
	}
	if r, body := c.answer("PUT"); r.StatusCode != http.StatusCreated || r.ContentLength != int64(len(body)) {
		t.Fatalf("%s, length %d: %s", r.Status, r.ContentLength, body)
	}
	get, steps := rawV2("GET", "/a", ""), 0
	var all strings.Builder
	want := []struct {
		method, request, holds string
		length                 bool // is told, as net/http does not for long answers
	}{
		{"GET", get, long, true},
		{"PUT", rawV2("PUT", "/b", "value=1"), `"action":"set"`, true},
		{"PUT", "PUT /v2/keys/c HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nvalue=2\r\n0\r\n\r\n", `"value":"2"`, true},
		{"GET", "GET /version HTTP/1.1\r\nHost: x\r\n\r\n", "etcdserver", true},
		{"GET", get, long, false},
	}
	for _, w := range want {
		all.WriteString(w.request)
	}
	c.send(all.String())
	for _, w := range want {
		steps++
		if r, body := c.answer(w.method); r.StatusCode >= 300 || !strings.Contains(body, w.holds) || (r.ContentLength >= 0) != w.length {
			t.Fatalf("answer %d: %s, length %d: %.100s", steps, r.Status, r.ContentLength, body)
		}
	}
}

// If this fails, a client under TLS that has been answered directly loses its
// certificate on the way to net/http, and is taken for nobody.
func TestCertificateGoesWithTheConnection(t *testing.T) {
	certs := newCerts(t)
	m := startTLSMember(t, func(cfg *Config) { cfg.ClientTLS, cfg.BcryptCost = certs.mutual(), 4 })
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	root := newClient(t, certs.dialer("root", certs.ca, certs.ca), m.testEndpoint())
	if err := putOver(ctx, root, "served"); err != nil {
		t.Fatal(err)
	}
	c := rawDial(t, m.clientListeners[0].Addr().String(), certs.dialer("alice", certs.ca, certs.ca))
	c.send(rawV2("PUT", "/a", "value="+strings.Repeat("v", 4<<10)))
	if r, body := c.answer("PUT"); r.StatusCode != http.StatusCreated || r.ContentLength < 0 {
		t.Fatalf("without authentication: %s, length %d: %s", r.Status, r.ContentLength, body)
	}
	enableFor(ctx, t, root, "alice", "a")
	c.send(rawV2("GET", "/a", ""))
	if r, body := c.answer("GET"); r.StatusCode != http.StatusBadRequest || !strings.Contains(body, "CommonName") {
		t.Errorf("with authentication: %s: %s", r.Status, body)
	}
}
