package grpcproxy

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kvorum/kvorum/pki"
	"github.com/kvorum/kvorum/server/secure"
)

// config is the TLS towards members; nil is none. The certificate is read again
// for each connection.
func (t *ServerTLS) config(endpoints []string, log *slog.Logger) (*tls.Config, error) {
	asked := slices.ContainsFunc(endpoints, func(e string) bool { return strings.HasPrefix(e, "https://") || strings.HasPrefix(e, "unixs://") })
	if !asked && t.none() {
		return nil, nil
	}
	files, err := secure.Open(secure.Options{CertFile: t.CertFile, KeyFile: t.KeyFile, TrustedCAFile: t.CAFile, TrustAnyServer: t.SkipVerify, Log: log})
	if err != nil {
		return nil, fmt.Errorf("TLS towards members: %w", err)
	}
	c := files.Client()
	if t.CertFile != "" {
		c.Certificates = nil
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &files.Client().Certificates[0], nil
		}
	}
	return c, nil
}

// clientTLSConfig is the TLS towards clients; nil is none.
func (c *Config) clientTLSConfig(log *slog.Logger) (*tls.Config, error) {
	t := c.ClientTLS
	if !t.given() {
		return nil, nil
	}
	if t.CertFile == "" {
		made, err := c.autoCertificate(log)
		if err != nil {
			return nil, fmt.Errorf("--auto-tls: %w", err)
		}
		t.CertFile, t.KeyFile = made.Cert, made.Key
	}
	// Validate has checked these.
	oldest, _ := tlsVersion(t.MinVersion)
	newest, _ := tlsVersion(t.MaxVersion)
	suites, _ := cipherSuites(t.CipherSuites)
	files, err := secure.Open(secure.Options{
		CertFile: t.CertFile, KeyFile: t.KeyFile, TrustedCAFile: t.TrustedCAFile, CRLFile: t.CRLFile, ClientCertAuth: t.TrustedCAFile != "",
		MinVersion: oldest, MaxVersion: newest, CipherSuites: suites, Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("TLS towards clients: %w", err)
	}
	return files.Server(), nil
}

// autoCertificate is the self-signed certificate, made when there is none that is
// still valid.
func (c *Config) autoCertificate(log *slog.Logger) (pki.Paths, error) {
	dir := filepath.Join(c.DataDir, "fixtures", "proxy")
	at := pki.Paths{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	now := time.Now()
	if old, err := tls.LoadX509KeyPair(at.Cert, at.Key); err == nil && now.Before(old.Leaf.NotAfter) {
		return at, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return at, err
	}
	host, _, err := net.SplitHostPort(c.ListenAddr)
	if err != nil {
		return at, fmt.Errorf("--listen-addr: %w", err)
	}
	pair, err := pki.SelfSigned(pki.Subject{Organizations: []string{"etcd"}, Hosts: []string{host}, Server: true, Client: true},
		pki.Validity{From: now, To: now.AddDate(int(c.ClientTLS.SelfSignedYears), 0, 0)}) //nolint:gosec // years
	if err != nil {
		return at, err
	}
	log.Info("made a self-signed certificate", "path", at.Cert, "host", host)
	return at, pair.Write(at)
}
