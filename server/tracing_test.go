package server

import (
	"bytes"
	"context"
	"encoding/hex"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server/trace"
)

// fakeCollector takes spans over OTLP.
type fakeCollector struct {
	collector.UnimplementedTraceServiceServer
	address string
	mu      sync.Mutex
	spans   []*otlp.Span
	about   []string // resource attributes
}

func startCollector(t *testing.T) *fakeCollector {
	t.Helper()
	l := must[net.Listener](t)((&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0"))
	c, g := &fakeCollector{address: l.Addr().String()}, grpc.NewServer()
	collector.RegisterTraceServiceServer(g, c)
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	t.Cleanup(func() { g.Stop(); <-done })
	return c
}

func (c *fakeCollector) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range r.ResourceSpans {
		for _, a := range rs.Resource.Attributes {
			c.about = append(c.about, a.Key+"="+a.Value.GetStringValue())
		}
		for _, s := range rs.ScopeSpans {
			c.spans = append(c.spans, s.Spans...)
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func (c *fakeCollector) named(name string) *otlp.Span {
	for _, s := range c.spans {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// If this fails, an operator who traces a slow request does not see where its
// time went.
func TestTraces(t *testing.T) {
	to := startCollector(t)
	m := startMember(t, func(c *Config) {
		c.Tracing = Tracing{On: true, Address: to.address, Service: "kv", Instance: "m1", Rate: trace.RateMax}
	})
	kv := pb.NewKVClient(m.conn)
	must[*pb.PutResponse](t)(kv.Put(m.ctx, &pb.PutRequest{Key: []byte("hidden"), Value: []byte("hidden")}))
	must[*pb.RangeResponse](t)(kv.Range(m.ctx, &pb.RangeRequest{Key: []byte("hidden")}))
	m.stop() // sends what is left
	to.mu.Lock()
	defer to.mu.Unlock()
	put, read := to.named("etcdserverpb.KV/Put"), to.named("etcdserverpb.KV/Range")
	propose, barrier, apply := to.named("propose"), to.named("read barrier"), to.named("apply")
	for _, s := range to.spans {
		if s.Name == "propose" && put != nil && bytes.Equal(s.ParentSpanId, put.SpanId) {
			propose = s
		}
	}
	for _, s := range to.spans {
		if s.Name == "apply" && propose != nil && bytes.Equal(s.ParentSpanId, propose.SpanId) {
			apply = s
		}
	}
	if put == nil || read == nil || propose == nil || barrier == nil || apply == nil {
		t.Fatalf("spans: %v", to.spans)
	}
	if !bytes.Equal(propose.ParentSpanId, put.SpanId) || !bytes.Equal(apply.ParentSpanId, propose.SpanId) || !bytes.Equal(barrier.ParentSpanId, read.SpanId) || bytes.Equal(put.TraceId, read.TraceId) {
		t.Errorf("the spans are not within one another: %v", to.spans)
	}
	if apply.StartTimeUnixNano < propose.StartTimeUnixNano || apply.EndTimeUnixNano > propose.EndTimeUnixNano || apply.EndTimeUnixNano <= apply.StartTimeUnixNano {
		t.Errorf("apply %v is not in the time of propose %v", apply, propose)
	}
	for _, want := range []string{"service.name=kv", "service.instance.id=m1"} {
		if !slices.Contains(to.about, want) {
			t.Errorf("the traces say %q of their member, not %s", to.about, want)
		}
	}
	for _, s := range to.spans {
		if strings.Contains(s.String(), "hidden") {
			t.Errorf("a span tells a key or value: %v", s)
		}
	}
}

// If this fails, a client that traces its requests sees nothing of the server,
// or those of all others are traced without being asked for.
func TestTracesOfClientsThatTrace(t *testing.T) {
	to := startCollector(t)
	m := startMember(t, func(c *Config) { c.Tracing = Tracing{On: true, Address: to.address, Service: "kv"} })
	kv := pb.NewKVClient(m.conn)
	must[*pb.RangeResponse](t)(kv.Range(m.ctx, &pb.RangeRequest{Key: []byte("a")}))
	const id, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	traced := metadata.AppendToOutgoingContext(m.ctx, "traceparent", "00-"+id+"-"+parent+"-01")
	must[*pb.PutResponse](t)(kv.Put(traced, &pb.PutRequest{Key: []byte("a")}))
	m.stop()
	to.mu.Lock()
	defer to.mu.Unlock()
	if len(to.spans) != 3 || to.named("etcdserverpb.KV/Put") == nil {
		t.Fatalf("spans %v, want Put, propose and apply", to.spans)
	}
	for _, s := range to.spans {
		if got := hex.EncodeToString(s.TraceId); got != id {
			t.Errorf("%s is in the trace %s, want %s", s.Name, got, id)
		}
	}
}

// lockedBuffer is a log that goroutines write to.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// If this fails, a member whose collector is dead serves slowly, fills its log or
// does not stop.
func TestDeadCollector(t *testing.T) {
	l := must[net.Listener](t)((&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0"))
	defer l.Close() // accepts and never answers
	said := &lockedBuffer{}
	tracer := must[*trace.Tracer](t)(trace.New(t.Context(), trace.Options{
		Address: l.Addr().String(), Rate: trace.RateMax, Log: slog.New(slog.NewTextHandler(said, nil)), SendEvery: time.Millisecond,
	}))
	began := time.Now()
	for range 20_000 { // several queues full
		_, span := tracer.Start(t.Context(), "x")
		span.End(nil)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("20000 spans took %v", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began = time.Now()
	tracer.Close(ctx)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("closing took %v", took)
	}
	m := startMember(t, func(c *Config) {
		c.Tracing = Tracing{On: true, Address: "127.0.0.1:1", Service: "kv", Rate: trace.RateMax}
	})
	for range 100 {
		must[*pb.PutResponse](t)(pb.NewKVClient(m.conn).Put(m.ctx, &pb.PutRequest{Key: []byte("k")}))
	}
	began = time.Now()
	m.stop()
	if took := time.Since(began); took > traceFlushMax+5*time.Second {
		t.Errorf("stopping took %v", took)
	}
	if n := strings.Count(said.String(), "\n"); n > 3 {
		t.Errorf("%d lines about the collector:\n%s", n, said)
	}
}

// If this fails, tracing that cannot work is found out when it is needed.
func TestTracingFlags(t *testing.T) {
	for text, want := range map[string]string{
		"--enable-distributed-tracing --distributed-tracing-sampling-rate=1000001": "between 0 and 1000000",
		"--enable-distributed-tracing --distributed-tracing-sampling-rate=-1":      "between 0 and 1000000",
		"--enable-distributed-tracing --distributed-tracing-address=host":          "must be host:port",
	} {
		if _, err := ParseFlags(strings.Fields(text), nil, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	r, err := ParseFlags([]string{"--distributed-tracing-sampling-rate=5"}, nil, io.Discard)
	if err != nil || len(r.Warn) != 1 {
		t.Errorf("a rate without tracing: %v, warnings %q", err, r.Warn)
	}
}
