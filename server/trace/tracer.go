package trace

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	otel "go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
)

// RateMax is the rate at which every request is traced.
const RateMax = 1_000_000

const (
	// Spans that wait for the collector, and how many go at once.
	queueSpansMax = 4096
	batchSpansMax = 512
	sendEvery     = time.Second
	sendTimeout   = 5 * time.Second
	// deadCloseMax is how long a stop waits for a collector that did not answer.
	deadCloseMax = 100 * time.Millisecond
)

// Options of a tracer.
type Options struct {
	Address  string // host:port of a collector that takes OTLP over gRPC in the clear
	Service  string // service.name of the spans
	Instance string // service.instance.id; "" has none
	Rate     int    // of a million requests whose clients do not trace
	Log      *slog.Logger
	// SendEvery is how long spans are gathered; 0 is a second.
	SendEvery time.Duration
}

// Check tells whether the options can be used.
func (o Options) Check() error {
	if o.Rate < 0 || o.Rate > RateMax {
		return fmt.Errorf("distributed tracing configuration is not valid: --distributed-tracing-sampling-rate must be between 0 and %d (set to %d)", RateMax, o.Rate)
	}
	if _, _, err := net.SplitHostPort(o.Address); err != nil {
		return fmt.Errorf("distributed tracing configuration is not valid: --distributed-tracing-address must be host:port: %w", err)
	}
	return nil
}

// Tracer makes spans. All methods may be called from any goroutine, and on nil.
type Tracer struct {
	provider *sdk.TracerProvider
	exporter *quietExporter
	tracer   otel.Tracer
}

// New makes a tracer. It does not wait for the collector.
func New(ctx context.Context, o Options) (*Tracer, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	exporter, err := otlptracegrpc.New(ctx, otlptracegrpc.WithInsecure(), otlptracegrpc.WithEndpoint(o.Address), otlptracegrpc.WithTimeout(sendTimeout))
	if err != nil {
		return nil, fmt.Errorf("make the exporter of traces: %w", err)
	}
	attributes := []attribute.KeyValue{attribute.String("service.name", o.Service)}
	if o.Instance != "" {
		attributes = append(attributes, attribute.String("service.instance.id", o.Instance))
	}
	if o.SendEvery == 0 {
		o.SendEvery = sendEvery
	}
	quiet := &quietExporter{SpanExporter: exporter, log: o.Log, to: o.Address}
	provider := sdk.NewTracerProvider(
		sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(float64(o.Rate)/RateMax))),
		sdk.WithResource(resource.NewSchemaless(attributes...)),
		sdk.WithBatcher(quiet, sdk.WithBatchTimeout(o.SendEvery),
			sdk.WithMaxQueueSize(queueSpansMax), sdk.WithMaxExportBatchSize(batchSpansMax), sdk.WithExportTimeout(sendTimeout)),
	)
	return &Tracer{provider: provider, exporter: quiet, tracer: provider.Tracer("github.com/kvorum/kvorum")}, nil
}

// Options makes a gRPC server trace its requests, but for health checks.
func (t *Tracer) Options() []grpc.ServerOption {
	if t == nil {
		return nil
	}
	return []grpc.ServerOption{grpc.StatsHandler(otelgrpc.NewServerHandler(
		otelgrpc.WithTracerProvider(t.provider), otelgrpc.WithMeterProvider(noop.NewMeterProvider()), otelgrpc.WithPropagators(propagation.TraceContext{}),
		otelgrpc.WithFilter(func(i *stats.RPCTagInfo) bool { return !strings.HasPrefix(i.FullMethodName, "/grpc.health.") }),
	))}
}

// Span is a step of a request; the zero value is none.
type Span struct{ span otel.Span }

// Start begins a step within the one that ctx carries.
func (t *Tracer) Start(ctx context.Context, name string) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	ctx, span := t.tracer.Start(ctx, name)
	return ctx, Span{span}
}

// Int says a number of the step.
func (s Span) Int(name string, n int) {
	if s.span != nil {
		s.span.SetAttributes(attribute.Int(name, n))
	}
}

// End ends the step.
func (s Span) End(err error) {
	if s.span == nil {
		return
	}
	if err != nil {
		s.span.SetStatus(codes.Error, err.Error())
	}
	s.span.End()
}

// Past makes a step within s that is over already.
func (t *Tracer) Past(within Span, name string, from, to time.Time, index uint64, err error) {
	if t == nil || within.span == nil || !within.span.IsRecording() {
		return
	}
	ctx := otel.ContextWithSpan(context.Background(), within.span)
	_, span := t.tracer.Start(ctx, name, otel.WithTimestamp(from), otel.WithAttributes(attribute.Int64("index", int64(index)))) //nolint:gosec // an index
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End(otel.WithTimestamp(to))
}

// Close sends what is left, as long as ctx lasts; a collector that is known to be
// dead is not waited for.
func (t *Tracer) Close(ctx context.Context) {
	if t == nil {
		return
	}
	if t.exporter.failing.Load() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, deadCloseMax)
		defer cancel()
	}
	_ = t.provider.Shutdown(ctx) // what cannot be sent is lost
}

// quietExporter tells once that the collector cannot be reached, and once that
// it can again: the library would say it for every batch, not in the log's form.
type quietExporter struct {
	sdk.SpanExporter
	log     *slog.Logger
	to      string
	failing atomic.Bool
	lost    atomic.Int64
}

// ExportSpans implements sdk.SpanExporter.
func (e *quietExporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	switch {
	case err != nil:
		e.lost.Add(int64(len(spans)))
		if !e.failing.Swap(true) {
			e.log.Warn("traces cannot be sent and are lost", "to", e.to, "error", err.Error())
		}
	case e.failing.Swap(false):
		e.log.Info("traces are sent again", "to", e.to, "lost-spans", e.lost.Swap(0))
	}
	return nil
}
