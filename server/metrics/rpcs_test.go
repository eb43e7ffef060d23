package metrics

import (
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func reported(version string) context.Context {
	return metadata.NewIncomingContext(context.Background(), metadata.Pairs("client-api-version", version))
}

func callUnary(p *RPCs, ctx context.Context) error {
	_, err := p.Unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: "/etcdserverpb.KV/Put"}, func(context.Context, any) (any, error) { return nil, nil })
	return err
}

// If this fails, a client that invents versions makes the member grow.
func TestVersionsOfClientsAreBounded(t *testing.T) {
	s := New()
	for i := range 10 * clientVersionsMax {
		if err := callUnary(s.RPCs, reported(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	rows := 0
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "etcd_server_client_requests_total" {
			rows = len(f.Metric)
		}
	}
	if rows != clientVersionsMax+1 {
		t.Errorf("%d versions have a row, want %d and the unknown", rows, clientVersionsMax)
	}
}

// If this fails, counting makes every request of every client slower.
func TestCountingDoesNotAllocate(t *testing.T) {
	s := New()
	s.Extensive()
	ctx := reported("3.7")
	// One copy of the client's version comes from the metadata package.
	if n := testing.AllocsPerRun(1000, func() { _ = callUnary(s.RPCs, ctx) }); n > 1 {
		t.Errorf("a call allocates %g times, want at most once", n)
	}
	n := testing.AllocsPerRun(1000, func() {
		s.Applied("Put", time.Millisecond, nil)
		s.Requested("Put", time.Millisecond, nil)
		s.Ranged(time.Millisecond, nil)
	})
	if n > 0 {
		t.Errorf("observing durations allocates %g times", n)
	}
}

// brokenStream fails with what it is told.
type brokenStream struct {
	grpc.ServerStream
	ctx context.Context
	err error
}

func (b brokenStream) Context() context.Context { return b.ctx }
func (b brokenStream) SendMsg(any) error        { return b.err }
func (b brokenStream) RecvMsg(any) error        { return b.err }

// If this fails, links to clients break unseen, or ordinary goodbyes look like
// failures.
func TestFailuresOfStreams(t *testing.T) {
	ended, end := context.WithCancel(context.Background())
	end()
	for _, c := range []struct {
		ctx  context.Context
		err  error
		want float64
	}{
		{context.Background(), status.Error(codes.Unavailable, "gone"), 1},
		{context.Background(), io.EOF, 0},
		{context.Background(), status.Error(codes.Canceled, "bye"), 0},
		{ended, status.Error(codes.Unavailable, "gone"), 0},
	} {
		p := New().RPCs
		info := &grpc.StreamServerInfo{FullMethod: "/etcdserverpb.Watch/Watch", IsClientStream: true, IsServerStream: true}
		_ = p.Stream(nil, brokenStream{ctx: c.ctx, err: c.err}, info, func(_ any, stream grpc.ServerStream) error {
			_ = stream.SendMsg(nil)
			return stream.RecvMsg(nil)
		})
		for _, what := range []string{"send", "receive"} {
			if got := read(t, p.failures.WithLabelValues(what, "watch")); got != c.want {
				t.Errorf("%v: %g failures of %s, want %g", c.err, got, what, c.want)
			}
		}
	}
}

func read(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families[0].Metric[0].GetCounter().GetValue()
}

func BenchmarkUnary(b *testing.B) {
	s := New()
	ctx := reported("3.7")
	b.ReportAllocs()
	for b.Loop() {
		_ = callUnary(s.RPCs, ctx)
	}
}

func BenchmarkApplied(b *testing.B) {
	s := New()
	b.ReportAllocs()
	for b.Loop() {
		s.Applied("Put", time.Millisecond, nil)
	}
}
