package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/kvorum/kvorum/internal/notify"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/membershippb"
	"github.com/kvorum/kvorum/server/api"
	"github.com/kvorum/kvorum/server/secure"
	_ "google.golang.org/grpc/encoding/gzip" // clients may compress
)

const (
	headerTimeout = 10 * time.Second
	// What comes to net/http are browsers, probes and the JSON gateway.
	httpStreamsMax = 250
	// A gRPC message may be this much larger than a request.
	grpcOverheadBytes = 512 << 10
	// grpcHeaderBytesMax bounds the metadata of a request; tokens have some
	// hundred bytes.
	grpcHeaderBytesMax = 64 << 10
	// What a client may send ahead of being read, on a stream and on all streams
	// of a connection; gRPC makes room for a message that is being read. Fixed, as
	// windows that follow the bandwidth grow to 16 MB.
	streamWindowBytes, connWindowBytes = 256 << 10, 1 << 20
	// idleTimeout ends HTTP connections that nobody uses.
	idleTimeout = 5 * time.Minute
	// RPCs run on so many goroutines that are kept: their stacks have grown to
	// what a request needs. When all are taken, gRPC starts more.
	streamWorkers = 1024
)

func (s *Server) openListeners(ctx context.Context) error {
	for _, list := range []struct {
		urls []url.URL
		tls  *secure.Files
		to   *[]listener
	}{
		{s.cfg.ListenPeerURLs, s.peerTLS, &s.peerListeners},
		{s.cfg.ListenClientURLs, s.clientTLS, &s.clientListeners},
		{s.cfg.ListenMetricsURLs, s.clientTLS, &s.probeListeners},
		{s.cfg.ListenClientHTTPURLs, s.clientTLS, &s.httpListeners},
	} {
		for _, u := range list.urls {
			l, err := s.cfg.listen(ctx, u)
			if err != nil {
				return err
			}
			open := listener{Listener: l}
			if isSecure(u) {
				open.tls = list.tls.Server() // Validate has checked that there are files
			}
			*list.to = append(*list.to, open)
		}
	}
	return nil
}

func (s *Server) closeListeners() {
	for _, list := range [][]listener{s.peerListeners, s.clientListeners, s.probeListeners, s.httpListeners} {
		for _, l := range list {
			_ = l.Close()
		}
	}
}

// servePeers serves the peer URLs, and the metrics URLs, until ctx ends.
func (s *Server) servePeers(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	probes := http.NewServeMux()
	s.probes(probes)
	for _, list := range []struct {
		side      string
		listeners []listener
		handler   http.Handler
	}{{"peer", s.peerListeners, s.gate.guard(s.peerHandler())}, {"client", s.probeListeners, probes}} {
		for _, l := range list.listeners {
			if list.side == "peer" {
				s.log.Info("serving peer traffic", "address", l.Addr().String())
			}
			s.serveOnlyHTTP(ctx, group, l, list.side, list.handler)
		}
	}
	return group.Wait()
}

// serveOnlyHTTP serves a socket without gRPC.
func (s *Server) serveOnlyHTTP(ctx context.Context, group *errgroup.Group, l listener, side string, h http.Handler) {
	from := l.Listener
	if l.tls != nil {
		split := newSplitter(l, side, s.log)
		group.Go(func() error { return split.run(ctx) })
		from = split.http
	}
	group.Go(func() error { return s.serveHTTP(ctx, from, h) })
}

// serveHTTP serves until ctx ends or the listener fails.
func (s *Server) serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{
		Handler: withTLS(h), ConnContext: noteTLS, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		HTTP2:    &http.HTTP2Config{MaxConcurrentStreams: int(min(s.cfg.MaxConcurrentStreams, httpStreamsMax))},
	}
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer func() { // the listener may be closed before ctx ends, its connections may not stay
		stop()
		_ = srv.Close()
	}()
	err := srv.Serve(l)
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// publish tells the cluster this member's name and client URLs. Clients are
// served from then on: the member has joined and knows a leader.
func (s *Server) publish(ctx context.Context) error {
	for {
		err := s.proposeAttributes(ctx)
		if err == nil {
			s.log.Info("published local member to cluster through raft", "local-member-id", hexID(uint64(s.self)), "cluster-id", hexID(s.cluster),
				"local-member-attributes", fmt.Sprintf("{Name:%s ClientURLs:%v}", s.cfg.Name, urlStrings(s.cfg.AdvertiseClientURLs)), "publish-timeout", s.cfg.requestTimeout())
			return s.serveClients(ctx)
		}
		if ctx.Err() != nil || errors.Is(err, api.ErrStopped) {
			return nil
		}
		s.log.Warn("failed to publish local member; trying again", "error", err.Error())
	}
}

// proposeAttributes ends as well when a snapshot from the leader has brought what
// it tells. The proposal may be among the entries that the snapshot stands for:
// these are not applied one by one, so nobody would answer it before it times out.
func (s *Server) proposeAttributes(ctx context.Context) error {
	attempt, end := context.WithCancel(ctx)
	defer end()
	s.endPublish.Store(&end)
	defer s.endPublish.Store(nil)
	err := s.proposeInternal(attempt, &pb.InternalRaftRequest{ClusterMemberAttrSet: &membershippb.ClusterMemberAttrSetRequest{
		Member_ID:        uint64(s.self),
		MemberAttributes: &membershippb.Attributes{Name: s.cfg.Name, ClientUrls: urlStrings(s.cfg.AdvertiseClientURLs)},
	}})
	if attempt.Err() != nil && ctx.Err() == nil {
		return nil
	}
	return err
}

// snapshotPublishes ends the wait of proposeAttributes if the state has what it
// tells. Only the applier calls it, after it has installed a snapshot.
func (s *Server) snapshotPublishes() {
	m, ok := s.machine.Member(s.self)
	if !ok || m.Name != s.cfg.Name || !slices.Equal(m.ClientURLs, urlStrings(s.cfg.AdvertiseClientURLs)) {
		return
	}
	if end := s.endPublish.Load(); end != nil {
		(*end)()
	}
}

// serveClients serves the client URLs until ctx ends.
func (s *Server) serveClients(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	var json http.Handler
	if s.cfg.EnableGateway {
		link, err := newGatewayLink()
		if err != nil {
			return err
		}
		defer link.close()
		group.Go(func() error { return link.serve(ctx, s.grpc) })
		json = s.gatewayHandler(link.conn)
	}
	web, traffic, direct := s.clientHandler(json), "grpc+http", s.v2Direct()
	handler := web
	if len(s.httpListeners) > 0 {
		handler, traffic, direct = http.NotFoundHandler(), "grpc", nil
	}
	handler = grpcByContentType(s.grpc, handler)
	for _, l := range s.clientListeners {
		split := newSplitter(l, "client", s.log)
		split.grpc, split.streamsMax, split.direct = newBranch(l), s.cfg.MaxConcurrentStreams, direct
		group.Go(func() error { return split.run(ctx) })
		group.Go(func() error { return ignoreStopped(s.grpc.Serve(split.grpc)) })
		group.Go(func() error { return s.serveHTTP(ctx, split.http, handler) })
		s.logReady(l, traffic)
	}
	for _, l := range s.httpListeners {
		s.serveOnlyHTTP(ctx, group, l, "client", web)
		s.logReady(l, "http")
	}
	notify.Ready()
	return group.Wait()
}

func (s *Server) logReady(l listener, traffic string) {
	s.log.Info("ready to serve client requests")
	how := "serving client traffic insecurely; this is strongly discouraged!"
	if l.tls != nil {
		how = "serving client traffic securely"
	}
	s.log.Info(how, "traffic", traffic, "address", l.Addr().String())
}

func ignoreStopped(err error) error {
	if errors.Is(err, grpc.ErrServerStopped) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// newGRPC is the gRPC server with all services.
func (s *Server) newGRPC() *grpc.Server {
	services := api.New(s, s.store, s.machine, api.Limits{
		Unsent: s.unsent, RequestBytesMax: int(s.cfg.MaxRequestBytes), TxnOpsMax: int(s.cfg.MaxTxnOps), LeaseTTLMin: s.cfg.minLeaseTTL(), ProgressInterval: s.cfg.ProgressInterval,
		V2PrefixWrites: s.cfg.V2PrefixWrites,
	}, api.Auth{Tokens: s.tokens, BcryptCost: s.cfg.BcryptCost, CommonNames: s.cfg.ClientTLS.ClientCertAuth})
	services.ObserveRanges(s.metrics.Ranged)
	services.ObserveWatches(s.metrics.Watches.Sent)
	s.services = services
	if s.cfg.debugs() {
		grpc.EnableTracing = true // for /debug/requests
	}
	unary, stream := s.interceptors(api.Guard{Services: services})
	g := grpc.NewServer(append(s.tracer.Options(),
		grpc.Creds(handshaken{insecure.NewCredentials()}),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.ForceServerCodecV2(api.Codec{Traffic: &s.traffic, Unsent: s.unsent}),
		grpc.MaxHeaderListSize(grpcHeaderBytesMax),
		grpc.InitialWindowSize(streamWindowBytes),
		grpc.InitialConnWindowSize(connWindowBytes),
		grpc.InTapHandle(s.admission.tap),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.MaxRecvMsgSize(int(s.cfg.MaxRequestBytes)+grpcOverheadBytes),
		grpc.MaxSendMsgSize(1<<31-1),
		grpc.MaxConcurrentStreams(s.cfg.MaxConcurrentStreams),
		grpc.ChainUnaryInterceptor(unary...),
		grpc.ChainStreamInterceptor(stream...),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: s.cfg.KeepAliveMinTime}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: s.cfg.KeepAliveInterval, Timeout: s.cfg.KeepAliveTimeout}),
	)...)
	services.Register(g)
	healthpb.RegisterHealthServer(g, s.health)
	s.metrics.RPCs.Expect(g.GetServiceInfo())
	registerReflection(g)
	return g
}

// interceptors are what every request passes, the outermost first.
func (s *Server) interceptors(guard api.Guard) ([]grpc.UnaryServerInterceptor, []grpc.StreamServerInterceptor) {
	unary := []grpc.UnaryServerInterceptor{s.metrics.RPCs.Unary, s.admission.unary, guard.Unary}
	stream := []grpc.StreamServerInterceptor{s.metrics.RPCs.Stream, guard.Stream}
	if s.audit != nil {
		unary = slices.Insert(unary, 1, s.audit.unary)
		stream = slices.Insert(stream, 1, s.audit.stream)
	}
	return unary, stream
}
