package v2

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// defaultEndpoints are where an etcd has been listening over the years.
const defaultEndpoints = "http://127.0.0.1:2379,http://127.0.0.1:4001"

// globals are the flags that stand before the command.
type globals struct {
	debug, noSync              bool
	output                     string
	discovery                  string
	insecureDiscovery          bool
	peers, endpoint, endpoints string
	certFile, keyFile, caFile  string
	username                   string
	timeout, totalTimeout      time.Duration
	help, version              bool
}

func (g *globals) flagSet() *flag.FlagSet {
	f := flag.NewFlagSet("", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	f.BoolVar(&g.debug, "debug", false, "show the curl command of each request on standard error")
	f.BoolVar(&g.noSync, "no-sync", false, "use the endpoints as given, without asking the cluster for its own")
	f.StringVar(&g.output, "output", "simple", "how results look: `simple`, extended or json")
	f.StringVar(&g.output, "o", "simple", alias+"output")
	f.StringVar(&g.discovery, "discovery-srv", "", "take the endpoints from the SRV records of this `domain`")
	f.StringVar(&g.discovery, "D", "", alias+"discovery-srv")
	f.BoolVar(&g.insecureDiscovery, "insecure-discovery", false, "use SRV records without TLS as well as those with TLS")
	f.StringVar(&g.peers, "peers", "", "deprecated name of --endpoints, for `URLs`")
	f.StringVar(&g.peers, "C", "", alias+"peers")
	f.StringVar(&g.endpoint, "endpoint", "", "deprecated name of --endpoints, for `URLs`")
	f.StringVar(&g.endpoints, "endpoints", "", "`URLs` of the cluster, with commas between (default "+defaultEndpoints+")")
	f.StringVar(&g.certFile, "cert-file", "", "PEM `file` with the certificate to show to servers")
	f.StringVar(&g.keyFile, "key-file", "", "PEM `file` with the private key of --cert-file")
	f.StringVar(&g.caFile, "ca-file", "", "PEM `file` with the authorities that may have signed a server's certificate")
	f.StringVar(&g.username, "username", "", "log in as `name[:password]`; a missing password is asked for")
	f.StringVar(&g.username, "u", "", alias+"username")
	f.DurationVar(&g.timeout, "timeout", 2*time.Second, "give up on an endpoint that does not answer in this time")
	f.DurationVar(&g.totalTimeout, "total-timeout", 5*time.Second, "give up on the command after this time, watches excepted")
	f.BoolVar(&g.help, "help", false, "explain the tool")
	f.BoolVar(&g.help, "h", false, alias+"help")
	f.BoolVar(&g.version, "version", false, "print the version")
	f.BoolVar(&g.version, "v", false, alias+"version")
	return f
}

// parse reads the flags before the command, and for those that are missing the
// environment. It returns the command and what follows.
func (g *globals) parse(t *tool) ([]string, error) {
	f := g.flagSet()
	if err := f.Parse(t.Args); err != nil {
		return nil, err
	}
	for _, v := range []struct {
		to   *string
		name string
	}{
		{&g.peers, "PEERS"}, {&g.endpoint, "ENDPOINT"}, {&g.endpoints, "ENDPOINTS"}, {&g.certFile, "CERT_FILE"}, {&g.keyFile, "KEY_FILE"},
		{&g.caFile, "CA_FILE"}, {&g.username, "USERNAME"}, {&g.discovery, "DISCOVERY_SRV"},
	} {
		if *v.to == "" {
			*v.to = t.getenv("ETCDCTL_" + v.name)
		}
	}
	if t.getenv("ETCDCTL_INSECURE_DISCOVERY") != "" {
		g.insecureDiscovery = true
	}
	return f.Args(), nil
}

// addresses are the endpoints as URLs, or an error for a person.
func (g *globals) addresses(ctx context.Context, t *tool) ([]string, error) {
	if g.discovery != "" {
		return g.discover(ctx, t.getenv("ETCDCTL_DISCOVERY_SRV_NAME"))
	}
	list := defaultEndpoints
	for _, given := range []string{g.endpoints, g.endpoint, g.peers} {
		if given != "" {
			list = given
			break
		}
	}
	return strings.Split(list, ","), nil
}

// discover asks the DNS for the endpoints of a domain.
func (g *globals) discover(ctx context.Context, name string) ([]string, error) {
	var found, failed []string
	for _, kind := range []struct{ service, scheme string }{{"etcd-client-ssl", "https"}, {"etcd-client", "http"}} {
		service := kind.service
		if name != "" {
			service += "-" + name
		}
		_, records, err := net.DefaultResolver.LookupSRV(ctx, service, "tcp", g.discovery)
		if err != nil {
			failed = append(failed, err.Error())
		}
		for _, r := range records {
			if kind.scheme == "https" || g.insecureDiscovery {
				found = append(found, fmt.Sprintf("%s://%s", kind.scheme, net.JoinHostPort(strings.TrimSuffix(r.Target, "."), fmt.Sprint(r.Port))))
			}
		}
	}
	switch {
	case len(found) > 0:
		return found, nil
	case len(failed) == 2:
		return nil, fmt.Errorf("dns lookup errors: %s", strings.Join(failed, " and "))
	}
	return nil, fmt.Errorf("the DNS has no endpoints with TLS for %s: --insecure-discovery takes those without", g.discovery)
}

// tls is the configuration that the flags ask for; nil means that of the system.
func (g *globals) tls() (*tls.Config, error) {
	if (g.certFile == "") != (g.keyFile == "") {
		return nil, fmt.Errorf("KeyFile and CertFile must both be present[key: %s, cert: %s]", g.keyFile, g.certFile)
	}
	if g.certFile == "" && g.caFile == "" {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if g.certFile != "" {
		pair, err := tls.LoadX509KeyPair(g.certFile, g.keyFile)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	if g.caFile != "" {
		pem, err := os.ReadFile(g.caFile)
		if err != nil {
			return nil, err
		}
		if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", g.caFile)
		}
	}
	return c, nil
}
