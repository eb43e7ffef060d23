// Package tcp is the command gateway: it forwards TCP connections to the members
// of a cluster and understands nothing of what they carry.
//
// It promises that connections go round over the endpoints that answer, that an
// endpoint that does not is left out until it does, and that no byte is changed:
// TLS is between the client and the member.
package tcp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/kvorum/kvorum/internal/notify"
	"github.com/kvorum/kvorum/internal/srv"
	"github.com/kvorum/kvorum/pki"
	"github.com/kvorum/kvorum/proxy/command"
)

// Config is what the command is told by its flags.
type Config struct {
	ListenAddr      string
	Endpoints       []string // host:port; a scheme before it is left out
	Domain, Service string   // SRV records, in the place of Endpoints
	InsecureSRV     bool     // use the records without TLS too
	TrustedCAFile   string   // who must have signed the certificates of the records' targets
	RetryDelay      time.Duration
	Resolver        *net.Resolver // nil is the system's
}

func (c *Config) flags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.StringVar(&c.ListenAddr, "listen-addr", "127.0.0.1:23790", "listen `address`")
	c.Endpoints = []string{"127.0.0.1:2379"}
	fs.Var(&command.List{To: &c.Endpoints}, "endpoints", "members of the cluster, by commas")
	fs.StringVar(&c.Domain, "discovery-srv", "", "take the endpoints from the SRV records of this `domain`")
	fs.StringVar(&c.Service, "discovery-srv-name", "", "look for the SRV service etcd-client-`name`")
	fs.BoolVar(&c.InsecureSRV, "insecure-discovery", false, "accept SRV records without TLS, and do not ask what they name for certificates")
	fs.StringVar(&c.TrustedCAFile, "trusted-ca-file", "", "leave out what the SRV records name unless this `file`'s authorities have signed its certificate (default the system's)")
	fs.DurationVar(&c.RetryDelay, "retry-delay", time.Minute, "time until an endpoint that failed is tried again")
	return fs
}

// Main is the command as a process; it returns the exit code.
func Main(name string, args []string, stdout, stderr io.Writer) int {
	var c Config
	if code, done := command.Parse(name, c.flags(name), args, stdout, stderr); done {
		return code
	}
	log := command.NewLog(stderr, slog.LevelInfo)
	log.Info("Running: ", "args", append(strings.Fields(name), args...))
	return command.UntilSignal(log, func(ctx context.Context) error { return c.run(ctx, log) })
}

func (c *Config) run(ctx context.Context, log *slog.Logger) error {
	if c.RetryDelay <= 0 {
		return fmt.Errorf("--retry-delay must be >0 (set to %v)", c.RetryDelay)
	}
	endpoints, err := c.find(ctx, log)
	if err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.ListenAddr)
	if err != nil {
		return fmt.Errorf("--listen-addr: %w", err)
	}
	g := New(Options{Listener: l, Endpoints: endpoints, RetryDelay: c.RetryDelay, Resolver: c.Resolver, Log: log})
	addresses := make([]string, len(endpoints))
	for i, e := range endpoints {
		addresses[i] = e.Address
	}
	log.Info("ready to proxy client requests", "address", l.Addr().String(), "endpoints", addresses)
	notify.Ready()
	return g.Run(ctx)
}

// find gives the endpoints of the flags or those of the domain.
func (c *Config) find(ctx context.Context, log *slog.Logger) ([]Endpoint, error) {
	var all []Endpoint
	if c.Domain == "" {
		for _, text := range c.Endpoints {
			address, err := addressOf(text)
			if err != nil {
				return nil, err
			}
			all = append(all, Endpoint{Address: address})
		}
		if len(all) == 0 {
			return nil, errors.New("--endpoints: no endpoint given")
		}
		return all, nil
	}
	targets, err := srv.Lookup(ctx, srv.Question{Service: srv.Client, Name: c.Service, Domain: c.Domain, SecureOnly: !c.InsecureSRV, Resolver: c.Resolver})
	if err != nil {
		return nil, fmt.Errorf("--discovery-srv: %w", err)
	}
	authorities, err := c.authorities()
	if err != nil {
		return nil, err
	}
	for _, t := range targets {
		if err := c.verify(ctx, t, authorities); err != nil {
			log.Warn("left out an endpoint that the SRV records name", "address", t.Address(), "error", err.Error())
			continue
		}
		all = append(all, Endpoint{Address: t.Address(), Priority: t.Priority})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("--discovery-srv: nothing that the records of %s name can be trusted", c.Domain)
	}
	return all, nil
}

// addressOf leaves out the scheme and refuses what is no host:port.
func addressOf(endpoint string) (string, error) {
	address := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(endpoint, "http://"), "https://"), "/")
	if _, _, err := net.SplitHostPort(address); err != nil {
		return "", fmt.Errorf("--endpoints: %q is not host:port: %w", endpoint, err)
	}
	return address, nil
}

// verify asks for the certificate of what a record names: the DNS alone is no
// proof. The certificate must be for the host that is named or for the domain.
func (c *Config) verify(ctx context.Context, t srv.Target, authorities *x509.CertPool) error {
	if c.InsecureSRV {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	check := func(s tls.ConnectionState) error {
		between := x509.NewCertPool()
		for _, cert := range s.PeerCertificates[1:] {
			between.AddCert(cert)
		}
		own := s.PeerCertificates[0]
		if _, err := own.Verify(x509.VerifyOptions{Roots: authorities, Intermediates: between}); err != nil {
			return err
		}
		if own.VerifyHostname(t.Host) == nil {
			return nil
		}
		return own.VerifyHostname(c.Domain)
	}
	d := tls.Dialer{NetDialer: &net.Dialer{Resolver: c.Resolver}, Config: &tls.Config{
		ServerName: t.Host, MinVersion: tls.VersionTLS12,
		InsecureSkipVerify: true, VerifyConnection: check, //nolint:gosec // check does it, for two names
	}}
	conn, err := d.DialContext(ctx, "tcp", t.Address())
	if err != nil {
		return err
	}
	return conn.Close()
}

// authorities are those of --trusted-ca-file; nil is the system's.
func (c *Config) authorities() (*x509.CertPool, error) {
	if c.TrustedCAFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(c.TrustedCAFile)
	if err != nil {
		return nil, fmt.Errorf("--trusted-ca-file: %w", err)
	}
	certs, err := pki.Certificates(text)
	if err != nil {
		return nil, fmt.Errorf("--trusted-ca-file %s: %w", c.TrustedCAFile, err)
	}
	pool := x509.NewCertPool()
	for _, cert := range certs {
		pool.AddCert(cert)
	}
	return pool, nil
}
