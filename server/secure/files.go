package secure

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"

	"github.com/kvorum/kvorum/pki"
)

// Options are the files of one side of a member, clients or peers, and whom it
// lets in.
type Options struct {
	CertFile, KeyFile             string // what we show; "" is nothing, for one who only dials
	ClientCertFile, ClientKeyFile string // what we show when we dial; "" is CertFile and KeyFile

	TrustedCAFile  string // who signs those that we trust; "" trusts no caller, and the system's when we dial
	CRLFile        string // whom we do not trust any more
	ClientCertAuth bool   // callers must show a certificate; else one that is shown must be good

	AllowedCNs       []string // common names of callers; empty is any
	AllowedHostnames []string // names or addresses of callers; empty is any
	CheckRemote      bool     // a caller's certificate must name the address that it calls from
	TrustAnyServer   bool     // dialing: do not verify, as --peer-auto-tls has it
	ServerName       string   // dialing: the name that every server must have; "" is the one dialed

	MinVersion, MaxVersion uint16   // of crypto/tls; 0 is its default
	CipherSuites           []uint16 // for TLS 1.2
	Protocols              []string // ALPN, the preferred first

	Log *slog.Logger
}

// Files are the parsed files behind Options. All methods may be called from any
// goroutine.
type Files struct {
	o       Options
	own     *watched[*tls.Certificate]       // nil: no certificate
	dialing *watched[*tls.Certificate]       // nil: no certificate
	trusted *watched[*x509.CertPool]         // nil: no CA file
	revoked *watched[[]*x509.RevocationList] // nil: no CRL file
}

// Open reads the files; one that cannot be used is an error.
func Open(o Options) (f *Files, err error) {
	f = &Files{o: o}
	if o.CertFile != "" {
		if f.own, err = newWatched(o.Log, []string{o.CertFile, o.KeyFile}, parsePair); err != nil {
			return nil, fmt.Errorf("certificate and key: %w", err)
		}
	}
	f.dialing = f.own
	if o.ClientCertFile != "" {
		if f.dialing, err = newWatched(o.Log, []string{o.ClientCertFile, o.ClientKeyFile}, parsePair); err != nil {
			return nil, fmt.Errorf("client certificate and key: %w", err)
		}
	}
	if o.TrustedCAFile != "" {
		if f.trusted, err = newWatched(o.Log, []string{o.TrustedCAFile}, parsePool); err != nil {
			return nil, fmt.Errorf("trusted authorities: %w", err)
		}
	}
	if o.CRLFile != "" {
		if f.revoked, err = newWatched(o.Log, []string{o.CRLFile}, parseLists); err != nil {
			return nil, fmt.Errorf("revocation list: %w", err)
		}
	}
	return f, nil
}

func parsePair(contents [][]byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(contents[0], contents[1])
	if err != nil {
		return nil, err
	}
	return &pair, nil
}

func parsePool(contents [][]byte) (*x509.CertPool, error) {
	certs, err := pki.Certificates(contents[0])
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool, nil
}

func parseLists(contents [][]byte) ([]*x509.RevocationList, error) {
	return pki.RevocationLists(contents[0])
}

// Server is the configuration for tls.Server. It stays the same while the files
// change. There must be a CertFile.
func (f *Files) Server() *tls.Config {
	c := f.base()
	c.GetConfigForClient = f.forCaller
	return c
}

// forCaller is the configuration of one handshake.
func (f *Files) forCaller(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	c := f.base()
	c.Certificates = []tls.Certificate{*f.own.get()}
	switch {
	case f.o.ClientCertAuth:
		c.ClientAuth = tls.RequireAndVerifyClientCert
	case f.trusted != nil:
		c.ClientAuth = tls.VerifyClientCertIfGiven
	default:
		return c, nil
	}
	if f.trusted != nil {
		c.ClientCAs = f.trusted.get()
	}
	// A session that is resumed is not verified against the files of today.
	c.SessionTicketsDisabled = true
	caller := caller{ctx: hello.Context(), remote: hello.Conn.RemoteAddr()}
	c.VerifyConnection = func(s tls.ConnectionState) error { return f.admit(caller, s) }
	return c, nil
}

// Client is the configuration for one dial; ask again for the next.
func (f *Files) Client() *tls.Config {
	c := f.base()
	if f.dialing != nil {
		c.Certificates = []tls.Certificate{*f.dialing.get()}
	}
	c.ServerName = f.o.ServerName
	c.InsecureSkipVerify = f.o.TrustAnyServer //nolint:gosec // auto TLS has no authority to verify against
	if f.trusted != nil {
		c.RootCAs = f.trusted.get()
	}
	c.VerifyConnection = func(s tls.ConnectionState) error { return f.checkRevoked(s.PeerCertificates) }
	return c
}

func (f *Files) base() *tls.Config {
	return &tls.Config{
		MinVersion: max(f.o.MinVersion, tls.VersionTLS12), MaxVersion: f.o.MaxVersion,
		CipherSuites: f.o.CipherSuites, NextProtos: f.o.Protocols,
	}
}
