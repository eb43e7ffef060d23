package metrics

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	unary        = "unary"
	serverStream = "server_stream"
	bidiStream   = "bidi_stream"
	// Clients choose the version that they report; beyond so many it is unknown.
	clientVersionsMax = 32
	unknownVersion    = "unknown"
)

// codeNames are the values of the label grpc_code, by code.
func codeNames() []string {
	names := make([]string, codes.Unauthenticated+1)
	for c := range names {
		names[c] = codes.Code(c).String() //nolint:gosec // 0 to 16
	}
	return names
}

// RPCs counts the calls of clients: it is the first interceptor.
type RPCs struct {
	// Ended, if set, is told of every call that has ended. request is nil for a
	// stream, response for one that failed.
	Ended func(ctx context.Context, method string, request, response any, took time.Duration, err error)

	started, handled, received, sent *prometheus.CounterVec
	seconds                          *prometheus.HistogramVec // nil: not wanted
	requests, failures               *prometheus.CounterVec
	byKind                           map[string]*cache[*rpc] // by grpc_type, then by full method
	versions                         map[string]*cache[prometheus.Counter]
}

// rpc is one method.
type rpc struct {
	started, received, sent prometheus.Counter
	handled                 []prometheus.Counter // by code
	seconds                 prometheus.Observer  // nil: not wanted
	open                    atomic.Int64
}

func newRPCs(registry *prometheus.Registry) *RPCs {
	labels := []string{"grpc_type", "grpc_service", "grpc_method"}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		registry.MustRegister(c)
		return c
	}
	p := &RPCs{
		started:  counter("grpc_server_started_total", "RPCs that have begun.", labels...),
		handled:  counter("grpc_server_handled_total", "RPCs that have ended, by code.", append(labels, "grpc_code")...),
		received: counter("grpc_server_msg_received_total", "Messages received from clients.", labels...),
		sent:     counter("grpc_server_msg_sent_total", "Messages sent to clients.", labels...),
		requests: counter("etcd_server_client_requests_total", "RPCs by the version that the client reports.", "type", "client_api_version"),
		failures: counter("etcd_network_server_stream_failures_total", "Streams that failed on the network.", "Type", "API"),
		byKind:   map[string]*cache[*rpc]{}, versions: map[string]*cache[prometheus.Counter]{},
	}
	for _, kind := range []string{unary, serverStream, bidiStream} {
		p.byKind[kind] = newCache(func(method string) *rpc { return p.newRPC(kind, method) })
	}
	for _, kind := range []string{unary, "stream"} {
		p.versions[kind] = newCache(func(version string) prometheus.Counter { return p.requests.WithLabelValues(kind, version) })
	}
	return p
}

// Extensive adds the durations of calls. Call it before Expect.
func (s *Set) Extensive() {
	s.RPCs.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "grpc_server_handling_seconds", Help: "Seconds that RPCs took.", Buckets: prometheus.DefBuckets,
	}, []string{"grpc_type", "grpc_service", "grpc_method"})
	s.registry.MustRegister(s.RPCs.seconds)
}

// Expect makes the rows of a server's methods, at 0. Those of lock and election
// appear with their first call, as in etcd.
func (p *RPCs) Expect(services map[string]grpc.ServiceInfo) {
	for name, service := range services {
		if !strings.HasPrefix(name, "etcdserverpb.") && name != "grpc.health.v1.Health" {
			continue
		}
		for _, m := range service.Methods {
			p.byKind[kindOf(m.IsClientStream, m.IsServerStream)].get("/" + name + "/" + m.Name)
		}
	}
}

func kindOf(clientStreams, serverStreams bool) string {
	switch {
	case clientStreams:
		return bidiStream
	case serverStreams:
		return serverStream
	}
	return unary
}

func (p *RPCs) newRPC(kind, fullMethod string) *rpc {
	service, method, _ := strings.Cut(strings.TrimPrefix(fullMethod, "/"), "/")
	r := &rpc{
		started:  p.started.WithLabelValues(kind, service, method),
		received: p.received.WithLabelValues(kind, service, method),
		sent:     p.sent.WithLabelValues(kind, service, method),
	}
	for _, code := range codeNames() {
		r.handled = append(r.handled, p.handled.WithLabelValues(kind, service, method, code))
	}
	if p.seconds != nil {
		r.seconds = p.seconds.WithLabelValues(kind, service, method)
	}
	return r
}

// Open is how many calls of a unary method are under way.
func (p *RPCs) Open(method string) int64 { return p.byKind[unary].get(method).open.Load() }

// Unary counts a unary RPC.
func (p *RPCs) Unary(ctx context.Context, r any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	m := p.byKind[unary].get(info.FullMethod)
	p.begin(ctx, m, unary)
	m.received.Inc()
	began := time.Now()
	response, err := next(ctx, r)
	if err == nil {
		m.sent.Inc()
	}
	p.end(ctx, m, info.FullMethod, r, response, time.Since(began), err)
	return response, err
}

// Stream counts a streaming RPC.
func (p *RPCs) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	m := p.byKind[kindOf(info.IsClientStream, info.IsServerStream)].get(info.FullMethod)
	p.begin(stream.Context(), m, "stream")
	began := time.Now()
	err := next(srv, &countedStream{ServerStream: stream, rpc: m, failures: p.failures, method: info.FullMethod})
	p.end(stream.Context(), m, info.FullMethod, nil, nil, time.Since(began), err)
	return err
}

func (p *RPCs) begin(ctx context.Context, m *rpc, kind string) {
	m.started.Inc()
	m.open.Add(1)
	version := unknownVersion
	if v := metadata.ValueFromIncomingContext(ctx, "client-api-version"); len(v) > 0 && len(v[0]) < clientVersionsMax {
		version = v[0]
	}
	versions := p.versions[kind]
	if versions.len() >= clientVersionsMax {
		if _, known := (*versions.all.Load())[version]; !known {
			version = unknownVersion
		}
	}
	versions.get(version).Inc()
}

func (p *RPCs) end(ctx context.Context, m *rpc, method string, request, response any, took time.Duration, err error) {
	m.open.Add(-1)
	code := status.Code(err)
	if int(code) >= len(m.handled) {
		code = codes.Unknown
	}
	m.handled[code].Inc()
	if m.seconds != nil {
		m.seconds.Observe(took.Seconds())
	}
	if p.Ended != nil {
		p.Ended(ctx, method, request, response, took, err)
	}
}

// countedStream counts the messages of a stream.
type countedStream struct {
	grpc.ServerStream
	rpc      *rpc
	failures *prometheus.CounterVec
	method   string
}

// SendMsg implements grpc.ServerStream.
func (s *countedStream) SendMsg(m any) error {
	err := s.ServerStream.SendMsg(m)
	if err != nil {
		s.failed("send", err)
		return err
	}
	s.rpc.sent.Inc()
	return nil
}

// RecvMsg implements grpc.ServerStream.
func (s *countedStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if err != nil {
		s.failed("receive", err)
		return err
	}
	s.rpc.received.Inc()
	return nil
}

// failed counts an error that is not the client's own doing.
func (s *countedStream) failed(what string, err error) {
	code := status.Code(err)
	if errors.Is(err, io.EOF) || code == codes.Canceled || code == codes.DeadlineExceeded || s.Context().Err() != nil {
		return
	}
	switch s.method {
	case "/etcdserverpb.Watch/Watch":
		s.failures.WithLabelValues(what, "watch").Inc()
	case "/etcdserverpb.Lease/LeaseKeepAlive":
		s.failures.WithLabelValues(what, "lease-keepalive").Inc()
	}
}
