package grpcproxy

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"math"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/kvorum/kvorum/proxy/command"
)

// Config is what the command is told by its flags.
type Config struct {
	ListenAddr           string
	MetricsAddr          string // URL; "" serves metrics on ListenAddr alone
	Endpoints            []string
	SyncInterval         time.Duration // between questions who the members are; 0 is never
	Domain, Service      string        // SRV records, in the place of Endpoints
	InsecureSRV          bool
	Resolver             *net.Resolver // of SRV records; nil is the system's
	AdvertiseClientURL   string
	ResolverPrefix       string // "" does not register this proxy
	ResolverTTLSec       int
	Namespace            string
	DataDir              string // of the certificate of AutoTLS
	SendBytesMax         int
	RecvBytesMax         int
	ServerTLS            ServerTLS // towards the members
	ClientTLS            ClientTLS // towards the clients
	ConcurrentStreams    uint32
	KeepAliveMinTime     time.Duration // clients may not ping more often
	KeepAliveInterval    time.Duration // a silent client is pinged; 0 is never
	KeepAliveTimeout     time.Duration
	DialKeepAliveTime    time.Duration // a silent member is pinged; 0 is 10 s
	DialKeepAliveTimeout time.Duration
	PingIdle             bool // members without a call too
	OrderedReads         bool // a serializable read never goes back in time
	EnablePprof          bool
	LogRPCs              bool
	Debug                bool
}

// ServerTLS is how the proxy speaks to members.
type ServerTLS struct {
	CertFile, KeyFile, CAFile string
	SkipVerify                bool
}

// ClientTLS is how clients speak to the proxy.
type ClientTLS struct {
	CertFile, KeyFile, TrustedCAFile, CRLFile string
	Auto                                      bool // a self-signed certificate in DataDir
	SelfSignedYears                           uint
	CipherSuites                              []string
	MinVersion, MaxVersion                    string
}

const (
	requestBytesDefault = 1536 << 10
	leasingRefused      = "leases on keys are not supported: linearizable reads always ask a member"
)

func (c *Config) flags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	c.clusterFlags(fs)
	c.clientFlags(fs)
	c.tlsFlags(fs)
	fs.BoolVar(&c.OrderedReads, "experimental-serializable-ordering", false, "ensure that serializable reads never show an older state than one that was shown before")
	fs.Func("experimental-leasing-prefix", "not supported: "+leasingRefused, func(s string) error {
		if s != "" {
			return errors.New(leasingRefused)
		}
		return nil
	})
	fs.BoolVar(&c.LogRPCs, "experimental-enable-grpc-logging", false, "log every RPC with its outcome")
	fs.BoolVar(&c.EnablePprof, "enable-pprof", false, "serve /debug/pprof/ on the client address")
	fs.BoolVar(&c.Debug, "debug", false, "log at level debug")
	return fs
}

func (c *Config) clusterFlags(fs *flag.FlagSet) {
	c.Endpoints = []string{"127.0.0.1:2379"}
	fs.Var(&command.List{To: &c.Endpoints}, "endpoints", "members of the cluster, by commas")
	fs.DurationVar(&c.SyncInterval, "endpoints-auto-sync-interval", 0, "time between questions to the cluster who its members are (default never)")
	fs.StringVar(&c.Domain, "discovery-srv", "", "take the members from the SRV records of this `domain`")
	fs.StringVar(&c.Service, "discovery-srv-name", "", "look for the SRV service etcd-client-`name`")
	fs.BoolVar(&c.InsecureSRV, "insecure-discovery", false, "accept SRV records without TLS")
	fs.StringVar(&c.Namespace, "namespace", "", "`prefix` of all keys in the cluster, which clients do not see")
	fs.IntVar(&c.SendBytesMax, "max-send-bytes", requestBytesDefault, "most `bytes` of a message to a member")
	fs.IntVar(&c.RecvBytesMax, "max-recv-bytes", math.MaxInt32, "most `bytes` of a message from a member")
	fs.DurationVar(&c.DialKeepAliveTime, "dial-keepalive-time", 0, "time after which a silent member is pinged; 0 is 10s")
	fs.DurationVar(&c.DialKeepAliveTimeout, "dial-keepalive-timeout", 20*time.Second, "time to wait for the answer to that ping")
	fs.BoolVar(&c.PingIdle, "permit-without-stream", false, "ping members also while no RPC is active")
}

func (c *Config) clientFlags(fs *flag.FlagSet) {
	fs.StringVar(&c.ListenAddr, "listen-addr", "127.0.0.1:23790", "listen `address`")
	fs.StringVar(&c.MetricsAddr, "metrics-addr", "", "serve /metrics, /health and those of the proxy on this `URL` too")
	fs.StringVar(&c.AdvertiseClientURL, "advertise-client-url", "127.0.0.1:23790", "`address` to register, as clients reach this proxy")
	fs.StringVar(&c.ResolverPrefix, "resolver-prefix", "", "`prefix` of the keys under which the proxies register; must be the same for all")
	fs.IntVar(&c.ResolverTTLSec, "resolver-ttl", 0, "`seconds` that the registration outlives this proxy")
	fs.StringVar(&c.DataDir, "data-dir", "default.proxy", "`folder` of the certificate of --auto-tls")
	c.ConcurrentStreams = math.MaxUint32
	fs.Func("max-concurrent-streams", "most streams that one client may have open (default 4294967295)", func(s string) error {
		n, err := strconv.ParseUint(s, 10, 32)
		c.ConcurrentStreams = uint32(n)
		return err
	})
	fs.DurationVar(&c.KeepAliveMinTime, "grpc-keepalive-min-time", 5*time.Second, "least time between pings of one client")
	fs.DurationVar(&c.KeepAliveInterval, "grpc-keepalive-interval", 2*time.Hour, "time after which a silent client is pinged (0 is never)")
	fs.DurationVar(&c.KeepAliveTimeout, "grpc-keepalive-timeout", 20*time.Second, "time to wait for the answer to that ping (0 is 20s)")
}

func (c *Config) tlsFlags(fs *flag.FlagSet) {
	s, t := &c.ServerTLS, &c.ClientTLS
	fs.StringVar(&s.CertFile, "cert", "", "certificate to show to members")
	fs.StringVar(&s.KeyFile, "key", "", "key of that certificate")
	fs.StringVar(&s.CAFile, "cacert", "", "certificates of the authorities that sign those of members")
	fs.BoolVar(&s.SkipVerify, "insecure-skip-tls-verify", false, "take any certificate for a member's; never outside a test")
	fs.StringVar(&t.CertFile, "cert-file", "", "certificate to show to clients")
	fs.StringVar(&t.KeyFile, "key-file", "", "key of that certificate")
	fs.StringVar(&t.TrustedCAFile, "trusted-ca-file", "", "refuse clients without a certificate of these authorities")
	fs.StringVar(&t.CRLFile, "client-crl-file", "", "list of revoked certificates of clients")
	fs.BoolVar(&t.Auto, "auto-tls", false, "make a self-signed certificate to show to clients")
	fs.UintVar(&t.SelfSignedYears, "self-signed-cert-validity", 1, "`years` for which that certificate is valid")
	fs.Var(&command.List{To: &t.CipherSuites}, "listen-cipher-suites", "TLS 1.2 cipher suites for clients, by commas (default Go's choice)")
	fs.StringVar(&t.MinVersion, "tls-min-version", "TLS1.2", "oldest TLS version for clients: TLS1.2 or TLS1.3")
	fs.StringVar(&t.MaxVersion, "tls-max-version", "", "newest TLS version for clients: TLS1.2 or TLS1.3 (default the newest)")
}

// Validate checks what one flag cannot check alone. The error names the flag and
// what is allowed.
func (c *Config) Validate() error {
	switch {
	case c.ResolverPrefix != "" && c.ResolverTTLSec < 1:
		return fmt.Errorf("invalid resolver-ttl %d: --resolver-prefix needs at least 1 second", c.ResolverTTLSec)
	case c.ResolverPrefix == "" && c.ResolverTTLSec > 0:
		return fmt.Errorf("invalid resolver-prefix: --resolver-ttl=%d needs one", c.ResolverTTLSec)
	case c.ResolverPrefix != "" && c.AdvertiseClientURL == "":
		return errors.New("invalid advertise-client-url: --resolver-prefix needs one")
	case c.SendBytesMax <= 0 || c.RecvBytesMax <= 0:
		return fmt.Errorf("--max-send-bytes and --max-recv-bytes must be >0 (set to %d and %d)", c.SendBytesMax, c.RecvBytesMax)
	case c.SendBytesMax > math.MaxInt32 || c.RecvBytesMax > math.MaxInt32:
		return fmt.Errorf("--max-send-bytes and --max-recv-bytes must be at most %d (set to %d and %d)", math.MaxInt32, c.SendBytesMax, c.RecvBytesMax)
	case c.SyncInterval < 0 || c.KeepAliveMinTime < 0 || c.KeepAliveInterval < 0 || c.KeepAliveTimeout < 0 || c.DialKeepAliveTime < 0 || c.DialKeepAliveTimeout < 0:
		return errors.New("intervals and timeouts must not be negative")
	case (c.ServerTLS.CertFile == "") != (c.ServerTLS.KeyFile == ""):
		return fmt.Errorf("KeyFile and CertFile must both be present[key: %v, cert: %v]", c.ServerTLS.KeyFile, c.ServerTLS.CertFile)
	case len(c.Endpoints) == 0 && c.Domain == "":
		return errors.New("--endpoints: no endpoint given")
	}
	if c.MetricsAddr != "" {
		if u, err := url.Parse(c.MetricsAddr); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("--metrics-addr: %q is not a URL such as http://127.0.0.1:4001", c.MetricsAddr)
		} else if u.Scheme == "https" && !c.ClientTLS.given() {
			return fmt.Errorf("--metrics-addr: %s needs --cert-file and --key-file, or --auto-tls", c.MetricsAddr)
		}
	}
	return c.ClientTLS.validate()
}

func (t *ClientTLS) given() bool { return t.CertFile != "" || t.Auto }

func (t *ClientTLS) validate() error {
	if (t.CertFile == "") != (t.KeyFile == "") {
		return fmt.Errorf("KeyFile and CertFile must both be present[key: %v, cert: %v]", t.KeyFile, t.CertFile)
	}
	if !t.given() && (t.TrustedCAFile != "" || t.CRLFile != "") {
		return errors.New("--trusted-ca-file and --client-crl-file need --cert-file and --key-file, or --auto-tls: without them clients come in the clear")
	}
	if t.Auto && t.SelfSignedYears == 0 {
		return errors.New("--self-signed-cert-validity must be at least 1 year")
	}
	for flag, name := range map[string]string{"--tls-min-version": t.MinVersion, "--tls-max-version": t.MaxVersion} {
		if _, err := tlsVersion(name); err != nil {
			return fmt.Errorf("%s: %w", flag, err)
		}
	}
	oldest, _ := tlsVersion(t.MinVersion)
	newest, _ := tlsVersion(t.MaxVersion)
	if newest != 0 && oldest > newest {
		return fmt.Errorf("min version (%s) is greater than max version (%s)", t.MinVersion, t.MaxVersion)
	}
	if len(t.CipherSuites) > 0 && oldest == tls.VersionTLS13 {
		return errors.New("cipher suites cannot be configured when only TLS1.3 is enabled")
	}
	_, err := cipherSuites(t.CipherSuites)
	return err
}

func tlsVersion(name string) (uint16, error) {
	switch name {
	case "":
		return 0, nil
	case "TLS1.2":
		return tls.VersionTLS12, nil
	case "TLS1.3":
		return tls.VersionTLS13, nil
	}
	return 0, fmt.Errorf("unexpected TLS version %q (must be one of: TLS1.2, TLS1.3)", name)
}

func cipherSuites(names []string) (ids []uint16, err error) {
	known := map[string]uint16{}
	for _, k := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		known[k.Name] = k.ID
	}
	for _, name := range names {
		id, ok := known[strings.TrimSpace(name)]
		if !ok {
			return nil, fmt.Errorf("unexpected TLS cipher suite %q", name)
		}
		ids = append(ids, id)
	}
	return ids, nil
}
