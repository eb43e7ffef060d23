package server

import (
	"context"
	"flag"
	"time"

	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/server/state"
	"github.com/kvorum/kvorum/server/trace"
)

// Tracing is what the tracer is told from outside.
type Tracing struct {
	On       bool
	Address  string // host:port of the collector
	Service  string
	Instance string
	Rate     int // of a million
}

// traceFlushMax bounds how long a stop waits for the collector.
const traceFlushMax = 2 * time.Second

func defaultTracing() Tracing { return Tracing{Address: "localhost:4317", Service: "etcd"} }

func traceFlags(fs *flag.FlagSet, c *Config) {
	t := &c.Tracing
	fs.BoolVar(&t.On, "enable-distributed-tracing", false, "send traces to an OpenTelemetry collector")
	fs.StringVar(&t.Address, "distributed-tracing-address", t.Address, "host:port of the collector, which takes OTLP over gRPC")
	fs.StringVar(&t.Service, "distributed-tracing-service-name", t.Service, "service.name of the traces; equal in all members of a cluster")
	fs.StringVar(&t.Instance, "distributed-tracing-instance-id", "", "service.instance.id of the traces; different in all members")
	fs.IntVar(&t.Rate, "distributed-tracing-sampling-rate", 0, "requests traced of a million, besides those whose clients trace")
}

func (t Tracing) options() trace.Options {
	return trace.Options{Address: t.Address, Service: t.Service, Instance: t.Instance, Rate: t.Rate}
}

func (c *Config) validateTracing() error {
	if !c.Tracing.On {
		return nil
	}
	return c.Tracing.options().Check()
}

// idle warns of options that change nothing while tracing is off.
func (t Tracing) idle() (warnings []string) {
	if t.On || t == defaultTracing() {
		return nil
	}
	return []string{"the flags --distributed-tracing-… have no effect without --enable-distributed-tracing"}
}

// openTracer makes the tracer, if there is to be one.
func (s *Server) openTracer(ctx context.Context) (err error) {
	if !s.cfg.Tracing.On {
		return nil
	}
	o := s.cfg.Tracing.options()
	o.Log = s.log
	s.tracer, err = trace.New(ctx, o)
	return err
}

func (s *Server) closeTracer() {
	ctx, cancel := context.WithTimeout(context.Background(), traceFlushMax)
	defer cancel()
	s.tracer.Close(ctx)
}

// traceApplied makes the span of applying a command whose client waits here.
func (a *applier) traceApplied(e raft.Entry, from, to time.Time, r *state.Result) {
	if a.tracer == nil || r.RequestID == 0 {
		return
	}
	a.tracer.Past(a.waiters.span(r.RequestID), "apply", from, to, uint64(e.Index), r.Err)
}
