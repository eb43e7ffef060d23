package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kvorum/kvorum/pki"
)

// logText keeps what is logged.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), s)
}

// stranger is somebody who calls the peer port.
type stranger struct {
	name    string
	dial    *tls.Config // nil: in the clear
	refusal string      // what the member logs
}

// If this fails, somebody who is no member is let in at the peer port, or is
// refused without the operator being told why.
func TestStrangersAtThePeerPort(t *testing.T) {
	c := newCerts(t)
	other := c.authority()
	for name, subject := range map[string]pki.Subject{
		"other-cn":   {CommonName: "intruder", Hosts: []string{"127.0.0.1"}, Client: true},
		"other-host": {CommonName: "m1", Hosts: []string{"192.0.2.1"}, Client: true},
		"server":     {CommonName: "m1", Hosts: []string{"127.0.0.1"}, Server: true},
	} {
		pair := must[pki.Pair](t)(c.ca.Issue(subject, validNow()))
		c.write(name+".pem", pair.Cert)
		c.write(name+"-key.pem", pair.Key)
	}
	s, log := startTLSMemberLogged(t, func(cfg *Config) {
		cfg.ListenClientURLs, cfg.AdvertiseClientURLs = mustURLs("http://127.0.0.1:0"), mustURLs("http://127.0.0.1:1")
		cfg.ListenPeerURLs, cfg.PeerTLS = mustURLs("https://127.0.0.1:0"), c.mutual()
		cfg.PeerTLS.AllowedCNs = []string{"m1"}
	})
	with := func(name string) *tls.Config {
		pair := must[tls.Certificate](t)(tls.LoadX509KeyPair(c.file(name+".pem"), c.file(name+"-key.pem")))
		return &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true} //nolint:gosec // a stranger trusts anybody
	}
	c.store("foreign", other)
	address := s.peerListeners[0].Addr().String()
	for _, who := range []stranger{
		{"no certificate", &tls.Config{InsecureSkipVerify: true}, "client didn't provide a certificate"}, //nolint:gosec // a stranger trusts anybody
		{"of another authority", with("foreign"), "certificate signed by unknown authority"},
		{"of another name", with("other-cn"), "client certificate authentication failed"},
		{"of another host", with("other-host"), "does not match any of IPAddresses"},
		{"not for clients", with("server"), "incompatible key usage"},
		{"in the clear", nil, "first record does not look like a TLS handshake"},
	} {
		if answer, err := askPeerPort(t.Context(), address, who.dial); err == nil && strings.Contains(answer, "peerURLs") {
			t.Errorf("%s: was told %s", who.name, answer)
		}
		eventually(t, who.name+" is refused in the log: "+who.refusal, func() bool { return log.has(who.refusal) })
	}
	if answer, err := askPeerPort(t.Context(), address, with("m1")); err != nil || !strings.Contains(answer, "peerURLs") {
		t.Errorf("a member is told %s, %v", answer, err)
	}
}

// askPeerPort asks for the members.
func askPeerPort(ctx context.Context, address string, c *tls.Config) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, testTimeout)
	defer cancel()
	scheme := "http"
	if c != nil {
		scheme = "https"
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: c, DisableKeepAlives: true}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s://%s/members", scheme, address), nil)
	if err != nil {
		return "", err
	}
	answer, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	return string(text), err
}

// If this fails, a member of another cluster can send raft messages to this one,
// or a TLS client holds a connection to a port in the clear for ever.
func TestStrangersAtAPeerPortInTheClear(t *testing.T) {
	s, log := startTLSMemberLogged(t, func(cfg *Config) {
		cfg.ListenClientURLs, cfg.AdvertiseClientURLs = mustURLs("http://127.0.0.1:0"), mustURLs("http://127.0.0.1:1")
	})
	address := s.peerListeners[0].Addr().String()
	r := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+"/raft", strings.NewReader("\x08\x08")))
	r.Header.Set("X-Etcd-Cluster-Id", "bad")
	r.Header.Set("X-Server-Version", "3.7.0")
	r.Header.Set("X-Server-From", "77")
	answer := must[*http.Response](t)(http.DefaultClient.Do(r))
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusPreconditionFailed {
		t.Errorf("another cluster is answered %s", answer.Status)
	}
	eventually(t, "the other cluster is in the log", func() bool { return log.has("cluster ID mismatch") })
	conn := must[net.Conn](t)((&net.Dialer{}).DialContext(t.Context(), "tcp", address))
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(testTimeout))
	if err := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(t.Context()); err == nil { //nolint:gosec // a stranger trusts anybody
		t.Error("a TLS handshake with a port in the clear succeeded")
	}
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection of a TLS client stays open")
	}
}
