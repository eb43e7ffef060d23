package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// APIVersion is what the client says of itself in each request.
const APIVersion = "3.7"

// Config says whom to talk to and how. Only Endpoints is required.
type Config struct {
	// Endpoints: host:port, http://, https://, unix:// or unixs://.
	Endpoints []string
	// TLS is used for https and unixs endpoints, and for those without a
	// scheme when it is set.
	TLS *tls.Config
	// TLSNow takes the place of TLS when it is set: it is called for each new
	// connection, such as to use certificates that have been replaced.
	TLSNow func() *tls.Config
	// User and Password are exchanged for a token by New. Token, when set, is
	// sent as it is and never renewed.
	User, Password, Token string
	// DialTimeout bounds one attempt to connect, and the first Authenticate.
	DialTimeout time.Duration
	// KeepAliveTime and KeepAliveTimeout: pings on a silent connection, so that
	// a watch notices a member that hangs. 10 s and 5 s when 0; gRPC does not
	// ping more often than every 10 s.
	KeepAliveTime, KeepAliveTimeout time.Duration
	// PingIdle pings connections without a call on them too.
	PingIdle bool
	// SendBytesMax and RecvBytesMax bound one message: 2 MiB and 2 GiB when 0.
	SendBytesMax, RecvBytesMax int
	// RequireLeader makes every call fail on a member that sees no leader.
	RequireLeader bool
	// Log gets retries and broken streams. Silent when nil.
	Log *slog.Logger
}

// Client is a connection to a cluster. All methods may be called from any
// goroutine. Close it when done.
type Client struct {
	KV          pb.KVClient
	Leases      pb.LeaseClient
	Cluster     pb.ClusterClient
	Maintenance pb.MaintenanceClient
	Auth        pb.AuthClient

	cfg    Config
	log    *slog.Logger
	conn   *grpc.ClientConn
	manual *manual.Resolver
	tokens tokens
	ctx    context.Context // ends with Close
	stop   context.CancelFunc
	wait   sync.WaitGroup // goroutines of watches and keep-alives

	watches [2]watchMux // without and with the demand for a leader
	keeper  keeper

	mu        sync.Mutex
	endpoints []string           // guarded by mu
	single    map[string]*Client // guarded by mu: clients of one endpoint each
}

// New connects to the cluster. It returns at once when no user is configured
// (connections are made in the background) and authenticates otherwise.
func New(cfg Config) (*Client, error) {
	if len(cfg.Endpoints) == 0 {
		return nil, errors.New("client: no endpoints given")
	}
	c := &Client{cfg: cfg, log: cfg.Log, endpoints: cfg.Endpoints, single: map[string]*Client{}}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.tokens.fixed = cfg.Token
	for i := range c.watches {
		c.watches[i].init(c, i == 1)
	}
	c.keeper.init(c)
	if err := c.dial(); err != nil {
		c.stop()
		return nil, err
	}
	if cfg.User != "" && cfg.Token == "" {
		if err := c.login(); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// Close ends all watches, keep-alives and calls, and closes the connections.
func (c *Client) Close() error {
	c.stop()
	c.wait.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, s := range c.single {
		errs = append(errs, s.Close())
	}
	c.single = map[string]*Client{}
	return errors.Join(append(errs, c.conn.Close())...)
}

// Endpoints are those that the client knows at this moment.
func (c *Client) Endpoints() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.endpoints...)
}

// SetEndpoints replaces the endpoints. Calls in flight are not disturbed on
// those that stay.
func (c *Client) SetEndpoints(endpoints ...string) error {
	state, err := resolverState(endpoints)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.endpoints = append([]string(nil), endpoints...)
	c.mu.Unlock()
	c.manual.UpdateState(state)
	return nil
}

// Conn is the connection under the client, for services that it has no methods
// for. Calls on it get the client's metadata and token, and unary ones its
// retries. It is owned by c.
func (c *Client) Conn() grpc.ClientConnInterface { return c.conn }

// At is the same cluster seen through one endpoint only, for what is asked of
// a certain member. It is owned and closed by c.
func (c *Client) At(endpoint string) (*Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.single[endpoint]; s != nil {
		return s, nil
	}
	cfg := c.cfg
	cfg.Endpoints = []string{endpoint}
	cfg.User, cfg.Password = "", ""
	s, err := New(cfg)
	if err != nil {
		return nil, err
	}
	s.cfg.User, s.cfg.Password = c.cfg.User, c.cfg.Password
	s.tokens.set(c.tokens.get())
	c.single[endpoint] = s
	return s, nil
}

func (c *Client) dial() error {
	state, err := resolverState(c.cfg.Endpoints)
	if err != nil {
		return err
	}
	c.manual = manual.NewBuilderWithScheme("kvorum")
	c.manual.InitialState(state)
	c.conn, err = grpc.NewClient("kvorum:///"+c.cfg.Endpoints[0], c.dialOptions()...)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	c.KV, c.Leases = pb.NewKVClient(c.conn), pb.NewLeaseClient(c.conn)
	c.Cluster, c.Maintenance = pb.NewClusterClient(c.conn), pb.NewMaintenanceClient(c.conn)
	c.Auth = pb.NewAuthClient(c.conn)
	return nil
}

func (c *Client) dialOptions() []grpc.DialOption {
	or := func(n, standard int) int {
		if n > 0 {
			return n
		}
		return standard
	}
	timeout := c.cfg.DialTimeout
	if timeout <= 0 {
		timeout = 5 * time.Second
	}
	retry := backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second}
	o := []grpc.DialOption{
		grpc.WithResolvers(c.manual),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
		grpc.WithTransportCredentials(c.credentials()),
		grpc.WithContextDialer(dialEndpoint),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: timeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time:    time.Duration(or(int(c.cfg.KeepAliveTime), int(10*time.Second))),
			Timeout: time.Duration(or(int(c.cfg.KeepAliveTimeout), int(5*time.Second))),

			PermitWithoutStream: c.cfg.PingIdle,
		}),
		grpc.WithChainUnaryInterceptor(c.unary),
		grpc.WithChainStreamInterceptor(c.stream),
		// A call waits for a connection, so that one which was never sent is
		// never reported as failed.
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true),
			grpc.MaxCallSendMsgSize(or(c.cfg.SendBytesMax, 2<<20)),
			grpc.MaxCallRecvMsgSize(or(c.cfg.RecvBytesMax, math.MaxInt32))),
	}
	return o
}

// credentials decides on TLS for the whole client: one endpoint that asks for
// it is enough, so that a password never leaves in the clear by accident.
func (c *Client) credentials() credentials.TransportCredentials {
	secure := false
	for _, s := range c.cfg.Endpoints {
		e, _ := parseEndpoint(s)
		secure = secure || e.secure || (!e.scheme && (c.cfg.TLS != nil || c.cfg.TLSNow != nil))
	}
	if !secure {
		return insecure.NewCredentials()
	}
	if c.cfg.TLSNow != nil {
		return freshTLS{c.cfg.TLSNow}
	}
	if c.cfg.TLS == nil {
		return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
	return credentials.NewTLS(c.cfg.TLS)
}

// endpoint is a parsed endpoint.
type endpoint struct {
	network, address string // for net.Dial
	authority        string // the :authority of requests, and the TLS name
	scheme, secure   bool
}

func parseEndpoint(s string) (endpoint, error) {
	scheme, rest, found := strings.Cut(s, "://")
	if !found {
		scheme, rest = "", s
	}
	if at := strings.LastIndex(rest, "@"); at >= 0 && !strings.HasPrefix(scheme, "unix") {
		return endpoint{}, fmt.Errorf("client: endpoint …%s must not contain a user or a password; they are given apart", rest[at:])
	}
	e := endpoint{scheme: found, secure: scheme == "https" || scheme == "unixs"}
	switch scheme {
	case "unix", "unixs":
		e.network, e.address, e.authority = "unix", rest, "localhost"
	case "", "http", "https":
		rest, _, _ = strings.Cut(rest, "/")
		e.network, e.address, e.authority = "tcp", rest, rest
	default:
		return e, fmt.Errorf("client: endpoint %q: the scheme must be http, https, unix or unixs", s)
	}
	if e.address == "" {
		return e, fmt.Errorf("client: endpoint %q has no address", s)
	}
	return e, nil
}

func resolverState(endpoints []string) (resolver.State, error) {
	var s resolver.State
	for _, text := range endpoints {
		e, err := parseEndpoint(text)
		if err != nil {
			return s, err
		}
		s.Addresses = append(s.Addresses, resolver.Address{Addr: e.network + ":" + e.address, ServerName: e.authority})
	}
	return s, nil
}

// dialEndpoint connects to network:address as resolverState writes it.
func dialEndpoint(ctx context.Context, target string) (net.Conn, error) {
	network, address, _ := strings.Cut(target, ":")
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}
