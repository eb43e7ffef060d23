package grpcproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/internal/srv"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/v3electionpb"
	"github.com/kvorum/kvorum/proto/v3lockpb"
)

// Proxy is one running proxy. Make it with New, run it once with Run.
type Proxy struct {
	cfg Config
	log *slog.Logger
	ns  namespace

	client *client.Client // of the members; has no user
	watch  pb.WatchClient
	ctx    context.Context // ends with Run
	cancel context.CancelFunc

	cache    *cache
	hub      *hub
	renewals *renewals
	metrics  *metrics
	seen     atomic.Int64 // the newest revision that any answer had

	listener net.Listener
	secured  *tls.Config    // nil: clients come in the clear
	probes   *probeListener // nil: none of its own
	grpc     *grpc.Server
	http     *http.Server
	upstream *http.Client // for /metrics of members
}

// New connects to the members, in the background, and opens the sockets. Nothing
// is served until Run.
func New(ctx context.Context, cfg Config, log *slog.Logger) (*Proxy, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	p := &Proxy{cfg: cfg, log: log, ns: namespace(cfg.Namespace), cache: newCache(time.Now)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if err := p.connect(ctx); err != nil {
		p.cancel()
		return nil, err
	}
	p.hub, p.renewals = newHub(p), newRenewals(p)
	p.metrics = newMetrics(p)
	p.grpc = p.newGRPC()
	p.http = newHTTP(p.handler())
	if err := p.listen(ctx); err != nil {
		p.cancel()
		return nil, errors.Join(err, p.client.Close())
	}
	return p, nil
}

// connect makes the client of the members.
func (p *Proxy) connect(ctx context.Context) error {
	endpoints, err := p.cfg.findEndpoints(ctx)
	if err != nil {
		return err
	}
	secured, err := p.cfg.ServerTLS.config(endpoints, p.log)
	if err != nil {
		return err
	}
	p.client, err = client.New(client.Config{
		Endpoints: endpoints, TLS: secured, KeepAliveTime: p.cfg.DialKeepAliveTime, KeepAliveTimeout: p.cfg.DialKeepAliveTimeout,
		PingIdle: p.cfg.PingIdle, SendBytesMax: withOverhead(p.cfg.SendBytesMax), RecvBytesMax: p.cfg.RecvBytesMax, Log: p.log,
	})
	if err != nil {
		return err
	}
	p.watch = pb.NewWatchClient(p.client.Conn())
	p.upstream = &http.Client{Timeout: upstreamTimeout, Transport: &http.Transport{TLSClientConfig: secured}}
	return nil
}

// findEndpoints gives the members of the flags or those of the domain.
func (c *Config) findEndpoints(ctx context.Context) ([]string, error) {
	if c.Domain == "" {
		return c.Endpoints, nil
	}
	targets, err := srv.Lookup(ctx, srv.Question{Service: srv.Client, Name: c.Service, Domain: c.Domain, SecureOnly: !c.InsecureSRV, Resolver: c.Resolver})
	if err != nil {
		return nil, fmt.Errorf("--discovery-srv: %w", err)
	}
	endpoints := make([]string, len(targets))
	for i, t := range targets {
		endpoints[i] = t.URL()
	}
	return endpoints, nil
}

// note remembers the newest revision that was seen.
func (p *Proxy) note(h *pb.ResponseHeader) {
	for revision := h.GetRevision(); ; {
		seen := p.seen.Load()
		if revision <= seen || p.seen.CompareAndSwap(seen, revision) {
			return
		}
	}
}

func (p *Proxy) newGRPC() *grpc.Server {
	s := grpc.NewServer(p.serverOptions()...)
	pb.RegisterKVServer(s, kvService{Proxy: p})
	pb.RegisterWatchServer(s, watchService{Proxy: p})
	pb.RegisterLeaseServer(s, leaseService{Proxy: p})
	v3lockpb.RegisterLockServer(s, lockService{Proxy: p, up: v3lockpb.NewLockClient(p.client.Conn())})
	v3electionpb.RegisterElectionServer(s, electionService{Proxy: p, up: v3electionpb.NewElectionClient(p.client.Conn())})
	if p.cfg.ResolverPrefix != "" {
		pb.RegisterClusterServer(s, clusterService{Proxy: p})
	}
	return s
}

// Addr is where clients are served.
func (p *Proxy) Addr() net.Addr { return p.listener.Addr() }

// Run serves until ctx ends or something fails that cannot be mended.
func (p *Proxy) Run(ctx context.Context) error {
	group, gctx := errgroup.WithContext(ctx)
	s := newSplitter(p.listener, p.secured, p.log)
	group.Go(func() error { return s.run(gctx) })
	group.Go(func() error { return served(p.grpc.Serve(s.grpc)) })
	group.Go(func() error { return served(p.http.Serve(s.http)) })
	if p.probes != nil {
		group.Go(func() error { return served(p.probes.serve()) })
	}
	if p.cfg.SyncInterval > 0 {
		group.Go(func() error { return p.followMembers(gctx) })
	}
	if p.cfg.ResolverPrefix != "" {
		group.Go(func() error { return p.register(gctx) })
	}
	group.Go(func() error {
		<-gctx.Done()
		p.stop()
		return nil
	})
	err := group.Wait()
	p.hub.running.Wait()
	p.renewals.running.Wait()
	return errors.Join(err, p.client.Close())
}

// served is the end of a server as Run returns it: to be stopped is no failure.
func served(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, grpc.ErrServerStopped) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (p *Proxy) stop() {
	p.cancel()
	_ = p.listener.Close()
	_ = p.http.Close()
	p.grpc.Stop()
	if p.probes != nil {
		_ = p.probes.http.Close()
	}
}

// followMembers asks the cluster who its members are, at intervals.
func (p *Proxy) followMembers(ctx context.Context) error {
	ticker := time.NewTicker(p.cfg.SyncInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		asked, cancel := context.WithTimeout(ctx, upstreamTimeout)
		if err := p.client.Sync(asked); err != nil && ctx.Err() == nil {
			p.log.Warn("failed to ask the cluster for its members", "error", client.Detail(err).Error())
		}
		cancel()
	}
}

// listen opens the sockets.
func (p *Proxy) listen(ctx context.Context) error {
	secured, err := p.cfg.clientTLSConfig(p.log)
	if err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.cfg.ListenAddr)
	if err != nil {
		return fmt.Errorf("--listen-addr: %w", err)
	}
	p.listener = l
	if secured != nil {
		p.secured = noteOffers(secured)
	}
	if p.cfg.MetricsAddr == "" {
		return nil
	}
	if p.probes, err = p.openProbes(ctx, secured); err != nil {
		_ = l.Close()
		return fmt.Errorf("--metrics-addr: %w", err)
	}
	return nil
}
