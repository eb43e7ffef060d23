package server

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kvorum/kvorum/pki"
	"github.com/kvorum/kvorum/server/secure"
)

// The values of TLSMinVersion and TLSMaxVersion.
const (
	TLS12 = "TLS1.2"
	TLS13 = "TLS1.3"
)

// TransportSecurity is the TLS of one side of a member: clients or peers.
type TransportSecurity struct {
	CertFile, KeyFile             string
	ClientCertFile, ClientKeyFile string // shown when this member dials; "" is CertFile and KeyFile
	TrustedCAFile                 string
	CRLFile                       string
	ClientCertAuth                bool     // callers must show a certificate
	AllowedCNs                    []string // of callers; not together with AllowedHostnames
	AllowedHostnames              []string
	Auto                          bool // a self-signed certificate in the data folder
	SkipClientSAN                 bool // peers: a certificate need not name the address that it calls from
}

// given tells whether there is a certificate, or will be.
func (t *TransportSecurity) given() bool { return t.CertFile != "" || t.KeyFile != "" || t.Auto }

// isSecure tells whether u is served under TLS.
func isSecure(u url.URL) bool { return u.Scheme == "https" || u.Scheme == "unixs" }

func tlsFlags(fs *flag.FlagSet, c *Config) {
	for _, side := range []struct {
		prefix, certPrefix, who string
		t                       *TransportSecurity
	}{{"", "client-cert", "clients", &c.ClientTLS}, {"peer-", "peer-cert", "members", &c.PeerTLS}} {
		t, p := side.t, side.prefix
		fs.StringVar(&t.CertFile, p+"cert-file", "", "certificate to show to "+side.who)
		fs.StringVar(&t.KeyFile, p+"key-file", "", "key of that certificate")
		fs.StringVar(&t.ClientCertFile, p+"client-cert-file", "", "certificate for calling "+side.who+", when it is another one")
		fs.StringVar(&t.ClientKeyFile, p+"client-key-file", "", "key of that certificate")
		fs.StringVar(&t.TrustedCAFile, p+"trusted-ca-file", "", "certificates of the authorities that sign those of "+side.who)
		fs.BoolVar(&t.ClientCertAuth, p+"client-cert-auth", false, "refuse "+side.who+" without a certificate of a trusted authority")
		fs.Func(side.certPrefix+"-allowed-hostname", "host names, by commas, of which a certificate of "+side.who+" must have one", listValue(&t.AllowedHostnames))
		fs.BoolVar(&t.Auto, p+"auto-tls", false, "make a self-signed certificate")
	}
	fs.StringVar(&c.ClientTLS.CRLFile, "client-crl-file", "", "list of revoked certificates of clients")
	fs.StringVar(&c.PeerTLS.CRLFile, "peer-crl-file", "", "list of revoked certificates of members")
	fs.Func("peer-cert-allowed-cn", "common names, by commas, of which a certificate of members must have one", listValue(&c.PeerTLS.AllowedCNs))
	fs.BoolVar(&c.PeerTLS.SkipClientSAN, "peer-skip-client-san-verification", false, "let a member call from an address that its certificate does not name")
	fs.UintVar(&c.SelfSignedYears, "self-signed-cert-validity", c.SelfSignedYears, "years for which the certificates of auto TLS are valid")
	fs.StringVar(&c.CipherSuites, "cipher-suites", "", "TLS 1.2 cipher suites, by commas (default Go's choice)")
	fs.StringVar(&c.TLSMinVersion, "tls-min-version", c.TLSMinVersion, "oldest TLS version: TLS1.2 or TLS1.3")
	fs.StringVar(&c.TLSMaxVersion, "tls-max-version", "", "newest TLS version: TLS1.2 or TLS1.3 (default the newest)")
}

func listValue(to *[]string) func(string) error {
	return func(s string) error {
		*to = nil
		for part := range strings.SplitSeq(s, ",") {
			if part = strings.TrimSpace(part); part != "" {
				*to = append(*to, part)
			}
		}
		return nil
	}
}

func (c *Config) validateTLS() error {
	if _, err := c.tlsRules(); err != nil {
		return err
	}
	for _, t := range []*TransportSecurity{&c.ClientTLS, &c.PeerTLS} {
		if err := t.validate(); err != nil {
			return err
		}
		if t.Auto && c.SelfSignedYears == 0 {
			return errors.New("selfSignedCertValidity is invalid,it should be greater than 0")
		}
	}
	for _, u := range c.ListenPeerURLs {
		if isSecure(u) && !c.PeerTLS.given() {
			return fmt.Errorf("cannot listen on TLS for %s: KeyFile and CertFile are not presented", u.Host+u.Path)
		}
	}
	for _, u := range slices.Concat(c.ListenClientURLs, c.ListenClientHTTPURLs, c.ListenMetricsURLs) {
		if isSecure(u) && !c.ClientTLS.given() {
			return fmt.Errorf("TLS key/cert (--cert-file, --key-file) must be provided for client url %s with HTTPS scheme", u.String())
		}
	}
	return nil
}

func (t *TransportSecurity) validate() error {
	if (t.CertFile == "") != (t.KeyFile == "") {
		return fmt.Errorf("KeyFile and CertFile must both be present[key: %v, cert: %v]", t.KeyFile, t.CertFile)
	}
	if (t.ClientCertFile == "") != (t.ClientKeyFile == "") {
		return fmt.Errorf("ClientKeyFile and ClientCertFile must both be present or both absent: key: %v, cert: %v]", t.ClientKeyFile, t.ClientCertFile)
	}
	if len(t.AllowedCNs) > 0 && len(t.AllowedHostnames) > 0 {
		return fmt.Errorf("AllowedCN and AllowedHostname are mutually exclusive (cn=%q, hostname=%q)", t.AllowedCNs, t.AllowedHostnames)
	}
	return nil
}

// tlsRules are the versions and suites, which clients and peers share.
func (c *Config) tlsRules() (o secure.Options, err error) {
	if o.MinVersion, err = tlsVersion(c.TLSMinVersion); err != nil {
		return o, err
	}
	if o.MaxVersion, err = tlsVersion(c.TLSMaxVersion); err != nil {
		return o, err
	}
	if o.MaxVersion != 0 && o.MinVersion > o.MaxVersion {
		return o, fmt.Errorf("min version (%s) is greater than max version (%s)", c.TLSMinVersion, c.TLSMaxVersion)
	}
	if c.CipherSuites == "" {
		return o, nil
	}
	if o.MinVersion == tls.VersionTLS13 {
		return o, errors.New("cipher suites cannot be configured when only TLS1.3 is enabled")
	}
	known := slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites())
	for name := range strings.SplitSeq(c.CipherSuites, ",") {
		at := slices.IndexFunc(known, func(k *tls.CipherSuite) bool { return k.Name == strings.TrimSpace(name) })
		if at < 0 {
			return o, fmt.Errorf("unexpected TLS cipher suite %q", name)
		}
		o.CipherSuites = append(o.CipherSuites, known[at].ID)
	}
	return o, nil
}

func tlsVersion(name string) (uint16, error) {
	switch name {
	case "":
		return 0, nil
	case TLS12:
		return tls.VersionTLS12, nil
	case TLS13:
		return tls.VersionTLS13, nil
	}
	return 0, fmt.Errorf("unexpected TLS version %q (must be one of: TLS1.2, TLS1.3)", name)
}

// openTLS reads the certificates that the URLs need, and makes those of auto
// TLS.
func (s *Server) openTLS() (err error) {
	c := &s.cfg
	s.warnUnused("client", c.ClientTLS, c.ListenClientURLs)
	s.warnUnused("peer", c.PeerTLS, c.ListenPeerURLs)
	if slices.ContainsFunc(slices.Concat(c.ListenClientURLs, c.ListenClientHTTPURLs, c.ListenMetricsURLs), isSecure) {
		hosts := urlHosts(c.ListenClientURLs, c.ListenClientHTTPURLs, c.ListenMetricsURLs, c.AdvertiseClientURLs)
		s.clientTLS, err = s.openSide("client", c.ClientTLS, hosts, secure.Options{Protocols: []string{protoHTTP2, protoHTTP1}})
		if err != nil {
			return fmt.Errorf("client TLS: %w", err)
		}
	}
	// A member that listens in the clear may still have to call one that does not.
	if slices.ContainsFunc(c.ListenPeerURLs, isSecure) || c.PeerTLS.CertFile != "" || c.PeerTLS.TrustedCAFile != "" {
		hosts := urlHosts(c.ListenPeerURLs, c.AdvertisePeerURLs)
		s.peerTLS, err = s.openSide("peer", c.PeerTLS, hosts, secure.Options{Protocols: []string{protoHTTP1}, CheckRemote: !c.PeerTLS.SkipClientSAN, ServerName: c.peerServerName()})
		if err != nil {
			return fmt.Errorf("peer TLS: %w", err)
		}
	}
	return nil
}

func (s *Server) openSide(side string, t TransportSecurity, hosts []string, o secure.Options) (*secure.Files, error) {
	rules, err := s.cfg.tlsRules()
	if err != nil {
		return nil, err
	}
	if t.Auto && t.CertFile == "" {
		made, err := s.autoCertificate(side, hosts)
		if err != nil {
			return nil, err
		}
		t.CertFile, t.KeyFile = made.Cert, made.Key
		o.TrustAnyServer = t.TrustedCAFile == ""
	}
	if t.ClientCertAuth && t.TrustedCAFile == "" {
		s.log.Warn("client certificates are required but there is no trusted-ca-file: the system's authorities decide who is let in", "side", side)
	}
	s.log.Info("starting with "+side+" TLS", "cert", t.CertFile, "key", t.KeyFile, "client-cert", t.ClientCertFile, "client-key", t.ClientKeyFile,
		"trusted-ca", t.TrustedCAFile, "client-cert-auth", t.ClientCertAuth, "crl-file", t.CRLFile, "cipher-suites", s.cfg.CipherSuites)
	o.CertFile, o.KeyFile, o.ClientCertFile, o.ClientKeyFile = t.CertFile, t.KeyFile, t.ClientCertFile, t.ClientKeyFile
	o.TrustedCAFile, o.CRLFile, o.ClientCertAuth = t.TrustedCAFile, t.CRLFile, t.ClientCertAuth
	o.AllowedCNs, o.AllowedHostnames = t.AllowedCNs, t.AllowedHostnames
	o.MinVersion, o.MaxVersion, o.CipherSuites, o.Log = rules.MinVersion, rules.MaxVersion, rules.CipherSuites, s.log
	return secure.Open(o)
}

// dialTLS gives the configuration for calling other members; nil is Go's own.
func (s *Server) dialTLS() func() *tls.Config {
	if s.peerTLS == nil {
		return nil
	}
	return s.peerTLS.Client
}

// autoCertificate is the self-signed certificate of one side, made when there is
// none that is still valid.
func (s *Server) autoCertificate(side string, hosts []string) (pki.Paths, error) {
	dir := filepath.Join(s.cfg.DataDir, "fixtures", side)
	at := pki.Paths{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	now := time.Now()
	if old, err := tls.LoadX509KeyPair(at.Cert, at.Key); err == nil && now.Before(old.Leaf.NotAfter) {
		return at, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return at, fmt.Errorf("make folder of certificates: %w", err)
	}
	pair, err := pki.SelfSigned(
		pki.Subject{Organizations: []string{"etcd"}, Hosts: hosts, Server: true, Client: true},
		pki.Validity{From: now, To: now.AddDate(int(s.cfg.SelfSignedYears), 0, 0)}) //nolint:gosec // years
	if err != nil {
		return at, err
	}
	s.log.Info("made a self-signed certificate", "path", at.Cert, "hosts", hosts)
	return at, pair.Write(at)
}

// urlHosts are the names in URLs, each once.
func urlHosts(lists ...[]url.URL) []string {
	var hosts []string
	for _, u := range slices.Concat(lists...) {
		host := u.Hostname()
		if u.Scheme == "unix" || u.Scheme == "unixs" {
			host = "localhost" // what clients take for the name of a socket file
		}
		if !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// warnUnused tells of settings that some URLs do not use.
func (s *Server) warnUnused(side string, t TransportSecurity, urls []url.URL) {
	if t.Auto && t.CertFile != "" {
		s.log.Warn("ignoring " + side + " auto TLS since certs given")
	}
	if side == "client" && t.ClientCertFile != "" {
		s.log.Warn("--client-cert-file and --client-key-file have no meaning here: this member does not call itself over the network")
	}
	for _, u := range urls {
		if isSecure(u) {
			continue
		}
		if t.CertFile != "" || t.Auto {
			s.log.Warn("scheme is http or unix while key and cert files are present; ignoring key and cert files", side+"-url", u.String())
		}
		if t.ClientCertAuth {
			s.log.Warn("scheme is http or unix while client cert auth is enabled; ignoring client cert auth for this URL", side+"-url", u.String())
		}
	}
}
