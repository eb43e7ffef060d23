// Package metrics is what a member tells Prometheus, under etcd's names, types
// and buckets, so that dashboards and alert rules made for etcd work unchanged.
//
// Numbers that another part keeps anyway are read when they are asked for; only
// durations and gRPC calls are observed as they happen.
package metrics

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Set is the metrics of one member.
type Set struct {
	// Peers observes the transport.
	Peers *Peers
	// RPCs counts the calls of clients.
	RPCs *RPCs
	*Operations

	// Watches observes watch streams.
	Watches *Watches
	*storage

	registry *prometheus.Registry
}

// New makes an empty set with the Go and process metrics in it.
func New() *Set {
	s := &Set{registry: prometheus.NewRegistry()}
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.storage = newStorage(s)
	s.RPCs = newRPCs(s.registry)
	s.Operations = newOperations(s)
	s.Watches = newWatches(s)
	s.Peers = newPeers(s.registry, s.storage)
	return s
}

func (s *Set) histogram(name, help string, start float64, count int) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(start, 2, count)})
	s.registry.MustRegister(h)
	return h
}

// Gauge registers a number that is read when asked for.
func (s *Set) Gauge(name, help string, read func() float64) {
	s.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
}

// Counter registers a growing number that is read when asked for.
func (s *Set) Counter(name, help string, read func() float64) {
	s.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, read))
}

// Info registers a gauge that is always 1 and says something in its label.
func (s *Set) Info(name, help, label, value string) {
	s.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: name, Help: help, ConstLabels: prometheus.Labels{label: value},
	}, func() float64 { return 1 }))
}

// Register adds a collector of the caller's own.
func (s *Set) Register(c prometheus.Collector) { s.registry.MustRegister(c) }

// Handler serves the set.
func (s *Set) Handler() http.Handler {
	return promhttp.InstrumentMetricHandler(s.registry, promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}))
}

// Peers observes the links to the other members.
type Peers struct {
	roundTrip *prometheus.HistogramVec
	sent      *prometheus.HistogramVec
	received  *prometheus.HistogramVec
	sentOK    *prometheus.CounterVec
	sentBad   *prometheus.CounterVec
	gotOK     *prometheus.CounterVec
	gotBad    *prometheus.CounterVec
	storage   *storage
}

func newPeers(registry *prometheus.Registry, o *storage) *Peers {
	histogram := func(name, help, label string, start float64, count int) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(start, 2, count)}, []string{label})
		registry.MustRegister(h)
		return h
	}
	counter := func(name, help, label string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		registry.MustRegister(c)
		return c
	}
	return &Peers{
		roundTrip: histogram("etcd_network_peer_round_trip_time_seconds", "Seconds that a probe of a member took.", "To", 0.0001, 16),
		sent:      histogram("etcd_network_snapshot_send_total_duration_seconds", "Seconds that sending a snapshot took.", "To", 0.1, 10),
		received:  histogram("etcd_network_snapshot_receive_total_duration_seconds", "Seconds that receiving a snapshot took.", "From", 0.1, 10),
		sentOK:    counter("etcd_network_snapshot_send_success", "Snapshots sent.", "To"),
		sentBad:   counter("etcd_network_snapshot_send_failures", "Snapshots not sent.", "To"),
		gotOK:     counter("etcd_network_snapshot_receive_success", "Snapshots received.", "From"),
		storage:   o,
		gotBad:    counter("etcd_network_snapshot_receive_failures", "Snapshots not received.", "From"),
	}
}

func hex(id uint64) string { return strconv.FormatUint(id, 16) }

// RoundTrip implements peer.Observer.
func (p *Peers) RoundTrip(to uint64, d time.Duration) {
	p.roundTrip.WithLabelValues(hex(to)).Observe(d.Seconds())
}

// SnapshotSend implements peer.Observer.
func (p *Peers) SnapshotSend(to uint64, d time.Duration, err error) {
	if err != nil {
		p.sentBad.WithLabelValues(hex(to)).Inc()
		return
	}
	p.sentOK.WithLabelValues(hex(to)).Inc()
	p.sent.WithLabelValues(hex(to)).Observe(d.Seconds())
}

// SnapshotSaved implements peer.Observer.
func (p *Peers) SnapshotSaved(total, sync time.Duration) {
	p.storage.receivedSave.Observe(total.Seconds())
	p.storage.receivedSync.Observe(sync.Seconds())
}

// SnapshotReceive implements peer.Observer.
func (p *Peers) SnapshotReceive(from uint64, d time.Duration, err error) {
	if err != nil {
		p.gotBad.WithLabelValues(hex(from)).Inc()
		return
	}
	p.gotOK.WithLabelValues(hex(from)).Inc()
	p.received.WithLabelValues(hex(from)).Observe(d.Seconds())
}
