package server

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"
)

// If this fails, v2 cannot be used under TLS, or a client believes to be the
// user of its certificate while the v2 API takes it for a guest.
func TestV2UnderTLS(t *testing.T) {
	c := newCerts(t)
	m := startTLSMember(t, func(cfg *Config) { cfg.ClientTLS, cfg.BcryptCost = c.mutual(), 4 })
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	ask := func(http2 bool, user string) (int, string) {
		t.Helper()
		transport := &http.Transport{TLSClientConfig: c.dialer("root", c.ca, c.ca), ForceAttemptHTTP2: http2}
		defer transport.CloseIdleConnections()
		r := must[*http.Request](t)(http.NewRequestWithContext(ctx, http.MethodPut, m.testEndpoint()+"/v2/keys/a?value=1", nil))
		if user != "" {
			r.SetBasicAuth(user, "pw")
		}
		answer := must[*http.Response](t)((&http.Client{Transport: transport}).Do(r))
		defer answer.Body.Close()
		if (answer.ProtoMajor == 2) != http2 {
			t.Errorf("spoke %s", answer.Proto)
		}
		return answer.StatusCode, text(t, answer)
	}
	for _, http2 := range []bool{false, true} {
		if status, body := ask(http2, ""); status >= 300 {
			t.Errorf("HTTP/2 %t: %d %s", http2, status, body)
		}
	}
	enableFor(ctx, t, newClient(t, c.dialer("root", c.ca, c.ca), m.testEndpoint()), "alice", "a")
	if status, body := ask(true, ""); status != http.StatusBadRequest || !strings.Contains(body, "CommonName") {
		t.Errorf("with auth and a certificate alone: %d %s", status, body)
	}
	if status, body := ask(true, "root"); status != http.StatusUnauthorized || !strings.Contains(body, `"errorCode":110`) {
		t.Errorf("a user without a password, with one: %d %s", status, body)
	}
}

// v2As sends JSON or a form as a user.
func (m *testMember) v2As(user, method, path, body string) *http.Response {
	m.t.Helper()
	r := must[*http.Request](m.t)(http.NewRequestWithContext(m.ctx, method, "http://"+m.clientListeners[0].Addr().String()+path, strings.NewReader(body)))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if user != "" {
		r.SetBasicAuth(user, "pw")
	}
	return must[*http.Response](m.t)(http.DefaultClient.Do(r))
}

// If this fails, who has lost the right to read goes on hearing of changes.
func TestV2WatchEndsWithThePermission(t *testing.T) {
	m := startMember(t, nil)
	m.awaitServing()
	do := func(user, method, path, body string) {
		t.Helper()
		answer := m.v2As(user, method, path, body)
		defer answer.Body.Close()
		if answer.StatusCode >= 300 {
			t.Fatalf("%s %s: %s", method, path, answer.Status)
		}
	}
	do("", "PUT", "/v2/auth/users/root", `{"user":"root","password":"pw"}`)
	do("", "PUT", "/v2/auth/roles/p", `{"role":"p","permissions":{"kv":{"read":["/a/*"]}}}`)
	do("", "PUT", "/v2/auth/users/u", `{"user":"u","password":"pw","roles":["p"]}`)
	do("", "PUT", "/v2/auth/enable", "")
	stream := m.v2As("u", "GET", "/v2/keys/a/b?wait=true&stream=true", "")
	defer stream.Body.Close()
	lines := bufio.NewReader(stream.Body)
	do("root", "PUT", "/v2/keys/a/b", "value=1")
	if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, `"value":"1"`) {
		t.Fatalf("while it is allowed: %q, %v", line, err)
	}
	do("root", "PUT", "/v2/auth/users/u", `{"user":"u","revoke":["p"]}`)
	do("root", "PUT", "/v2/keys/a/b", "value=2")
	if line, err := lines.ReadString('\n'); err == nil {
		t.Errorf("after that: %q", line)
	}
}

// If this fails, a client that streams from an old index loses changes, as with
// etcd 3.4, which falls silent after the first one.
func TestV2StreamFromOldIndex(t *testing.T) {
	m := startMember(t, nil)
	m.awaitServing()
	for _, value := range []string{"2", "3", "4"} { // each at the index of that number
		m.v2set("/a/b", value)
	}
	stream := m.v2As("", "GET", "/v2/keys/a?wait=true&stream=true&recursive=true&waitIndex=3", "")
	defer stream.Body.Close()
	lines := bufio.NewReader(stream.Body)
	for i, value := range []string{"3", "4", "5"} {
		if i == 2 {
			m.v2set("/a/b", "5")
		}
		line, err := lines.ReadString('\n')
		if err != nil || !strings.Contains(line, `"value":"`+value+`","modifiedIndex":`+value) {
			t.Fatalf("event %d: %q, %v; want %s", i, line, err, value)
		}
	}
}
