package server

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kvorum/kvorum/internal/srv"
	"github.com/kvorum/kvorum/server/secure"
)

// Discovery says where a member of a new cluster learns who the others are, when
// --initial-cluster does not say it: the SRV records of a domain, or a cluster
// that runs already and keeps a list.
type Discovery struct {
	Domain, Service string        // SRV records; Service may be ""
	Resolver        *net.Resolver // of these and of peer URLs; nil is the system's

	Endpoints                       []string // of the cluster with the list
	Token                           string   // of the list
	DialTimeout, RequestTimeout     time.Duration
	KeepAliveTime, KeepAliveTimeout time.Duration
	Insecure                        bool // speak in the clear while nothing else asks for TLS
	SkipVerify                      bool // take any certificate
	CertFile, KeyFile, CAFile       string
	User, Password                  string
}

func defaultDiscovery() Discovery {
	return Discovery{
		DialTimeout: 2 * time.Second, RequestTimeout: 5 * time.Second,
		KeepAliveTime: 2 * time.Second, KeepAliveTimeout: 6 * time.Second, Insecure: true,
	}
}

// fallbackExit is the one value that --discovery-fallback may have.
const fallbackExit = "exit"

func discoveryFlags(fs *flag.FlagSet, c *Config) {
	d := &c.Discovery
	fs.StringVar(&d.Domain, "discovery-srv", "", "learn the members of a new cluster from the SRV records of this domain")
	fs.StringVar(&d.Service, "discovery-srv-name", "", "look for the SRV service etcd-server-<name>")
	fs.Func("discovery-endpoints", "cluster, by commas, that keeps the list of the members of the new one", listValue(&d.Endpoints))
	fs.StringVar(&d.Token, "discovery-token", "", "name of that list")
	fs.DurationVar(&d.DialTimeout, "discovery-dial-timeout", d.DialTimeout, "longest time to connect to the cluster with the list")
	fs.DurationVar(&d.RequestTimeout, "discovery-request-timeout", d.RequestTimeout, "longest time of one request to it")
	fs.DurationVar(&d.KeepAliveTime, "discovery-keepalive-time", d.KeepAliveTime, "time after which a silent connection to it is pinged")
	fs.DurationVar(&d.KeepAliveTimeout, "discovery-keepalive-timeout", d.KeepAliveTimeout, "time to wait for the answer to that ping")
	fs.BoolVar(&d.Insecure, "discovery-insecure-transport", d.Insecure, "speak to it in the clear while nothing else asks for TLS")
	fs.BoolVar(&d.SkipVerify, "discovery-insecure-skip-tls-verify", false, "take any certificate for its own; never outside a test")
	fs.StringVar(&d.CertFile, "discovery-cert", "", "certificate to show to it")
	fs.StringVar(&d.KeyFile, "discovery-key", "", "key of that certificate")
	fs.StringVar(&d.CAFile, "discovery-cacert", "", "certificates of the authorities that sign its own")
	fs.StringVar(&d.User, "discovery-user", "", "user of it: name, or name:password")
	fs.StringVar(&d.Password, "discovery-password", "", "password of that user")
	fs.Var(choiceValue{new(fallbackExit), []string{fallbackExit}}, "discovery-fallback", "what to do when discovery fails: exit")
}

// validateDiscovery checks that there is one source of the members.
func (c *Config) validateDiscovery() error {
	d := &c.Discovery
	sources := 0
	for _, given := range []bool{c.InitialCluster != "", len(d.Endpoints) > 0, d.Domain != ""} {
		if given {
			sources++
		}
	}
	if sources > 1 {
		return errors.New(`multiple discovery or bootstrap flags are set. Choose one of "initial-cluster", "discovery-endpoints" or "discovery-srv"`)
	}
	if (d.Token == "") != (len(d.Endpoints) == 0) {
		return errors.New("both --discovery-token and --discovery-endpoints must be set")
	}
	if d.Service != "" && d.Domain == "" {
		return errors.New("--discovery-srv-name has no meaning without --discovery-srv")
	}
	if d.Token == "" {
		return nil
	}
	return d.validateEndpoints()
}

func (d *Discovery) validateEndpoints() error {
	if strings.Contains(d.Token, "/") {
		return fmt.Errorf("--discovery-token must not contain a slash (set to %q)", d.Token)
	}
	if (d.CertFile == "") != (d.KeyFile == "") {
		return fmt.Errorf("--discovery-cert and --discovery-key must both be set (cert %q, key %q)", d.CertFile, d.KeyFile)
	}
	for _, t := range []struct {
		flag string
		time time.Duration
	}{{"dial-timeout", d.DialTimeout}, {"request-timeout", d.RequestTimeout}, {"keepalive-time", d.KeepAliveTime}, {"keepalive-timeout", d.KeepAliveTimeout}} {
		if t.time <= 0 {
			return fmt.Errorf("--discovery-%s must be >0 (set to %v)", t.flag, t.time)
		}
	}
	user, password, both := strings.Cut(d.User, ":")
	if d.Password != "" {
		user, password, both = d.User, d.Password, true
	}
	if d.User != "" && !both || d.User == "" && d.Password != "" {
		return errors.New("--discovery-user needs a password: --discovery-user name:password, or --discovery-password")
	}
	d.User, d.Password = user, password
	return nil
}

// discover fills in what the flags leave to discovery: the members of the new
// cluster and what keeps it apart from others.
func (c *Config) discover(ctx context.Context, log *slog.Logger) error {
	switch {
	case c.Discovery.Token != "":
		members, err := c.joinRegistry(ctx, log)
		if err != nil {
			return fmt.Errorf("failed to join discovery cluster (%w)", err)
		}
		c.InitialCluster, c.InitialClusterToken = members, c.Discovery.Token
	case c.Discovery.Domain != "":
		members, err := c.lookUpMembers(ctx)
		if err != nil {
			return fmt.Errorf("error setting up initial cluster: %w", err)
		}
		log.Info("got bootstrap from DNS for etcd-server", "members", members)
		c.InitialCluster = members
	}
	return nil
}

// lookUpMembers makes the text of --initial-cluster from SRV records. Only this
// member's own name is known; the others are numbered, and tell their names when
// they have started.
func (c *Config) lookUpMembers(ctx context.Context) (string, error) {
	d := &c.Discovery
	targets, err := srv.Lookup(ctx, srv.Question{Service: srv.Server, Name: d.Service, Domain: d.Domain, Resolver: d.Resolver})
	if err != nil {
		return "", err
	}
	own := c.resolved(ctx, urlStrings(c.AdvertisePeerURLs))
	var members []string
	found := false
	for i, t := range targets {
		name := strconv.Itoa(i)
		if slices.Contains(own, c.resolved(ctx, []string{t.URL()})[0]) {
			name, found = c.Name, true
		} else if name == c.Name {
			name += "-srv"
		}
		members = append(members, name+"="+t.URL())
	}
	if !found {
		return "", fmt.Errorf("cannot find local etcd member %q in SRV records: none of %s is at --initial-advertise-peer-urls=%s",
			c.Name, strings.Join(members, ","), strings.Join(urlStrings(c.AdvertisePeerURLs), ","))
	}
	return strings.Join(members, ","), nil
}

// resolveTimeout bounds the look-up of a name in a peer URL.
const resolveTimeout = 10 * time.Second

// resolved gives the URLs with addresses in the place of names, sorted. A name
// that the DNS does not know stays.
func (c *Config) resolved(ctx context.Context, urls []string) []string {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	resolver := c.Discovery.Resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	out := make([]string, len(urls))
	for i, text := range urls {
		out[i] = text
		u, err := url.Parse(text)
		if err != nil || u.Port() == "" || net.ParseIP(u.Hostname()) != nil {
			continue
		}
		if addresses, err := resolver.LookupNetIP(ctx, "ip", u.Hostname()); err == nil && len(addresses) > 0 {
			slices.SortFunc(addresses, func(a, b netip.Addr) int { return a.Unmap().Compare(b.Unmap()) })
			u.Host = net.JoinHostPort(addresses[0].Unmap().String(), u.Port())
			out[i] = u.String()
		}
	}
	slices.Sort(out)
	return out
}

// peerServerName is the name that the certificates of other members must have
// where the DNS says who these are and no authority of the operator's own has
// signed for them: the domain's, as the DNS alone is no proof. "" is the name
// that is dialed.
func (c *Config) peerServerName() string {
	if c.PeerTLS.TrustedCAFile != "" {
		return ""
	}
	return c.Discovery.Domain
}

// dialer connects to members by the names that Resolver knows; nil is Go's own.
func (d *Discovery) dialer() func(ctx context.Context, network, address string) (net.Conn, error) {
	if d.Resolver == nil {
		return nil
	}
	return (&net.Dialer{Resolver: d.Resolver}).DialContext
}

// openTLS is the TLS towards the cluster with the list; nil is none.
func (d *Discovery) openTLS(log *slog.Logger) (*secure.Files, error) {
	asked := slices.ContainsFunc(d.Endpoints, func(e string) bool { return strings.HasPrefix(e, "https://") || strings.HasPrefix(e, "unixs://") })
	if !asked && d.CertFile == "" && d.CAFile == "" && !d.SkipVerify && d.Insecure {
		return nil, nil
	}
	return secure.Open(secure.Options{CertFile: d.CertFile, KeyFile: d.KeyFile, TrustedCAFile: d.CAFile, TrustAnyServer: d.SkipVerify, Log: log})
}
