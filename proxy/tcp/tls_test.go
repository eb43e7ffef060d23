package tcp

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/kvorum/kvorum/pki"
)

// startTLS serves a certificate for a name and nothing else; it gives the port.
func startTLS(t *testing.T, ca *pki.Authority, name string) int {
	t.Helper()
	now := time.Now()
	pair, err := ca.Issue(pki.Subject{Hosts: []string{name}, Server: true}, pki.Validity{From: now.Add(-time.Hour), To: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = c.(*tls.Conn).Handshake()
				_ = c.Close()
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}
