package grpcproxy

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are the proxy's own, under etcd's names where etcd has them.
type metrics struct{ registry *prometheus.Registry }

func newMetrics(p *Proxy) *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	gauge := func(name, help string, read func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "etcd", Subsystem: "grpc_proxy", Name: name, Help: help}, read))
	}
	figure := func(read func(answers, hits, misses int) int) func() float64 {
		return func() float64 { return float64(read(p.cache.stats())) }
	}
	gauge("cache_keys_total", "Answers in the cache.", figure(func(answers, _, _ int) int { return answers }))
	gauge("cache_hits_total", "Reads that the cache has answered.", figure(func(_, hits, _ int) int { return hits }))
	gauge("cache_misses_total", "Serializable reads that the cache could not answer.", figure(func(_, _, misses int) int { return misses }))
	gauge("watchers_coalescing_total", "Watchers beyond the watches on members that serve them.", func() float64 {
		watchers, feeds, _ := p.hub.stats()
		return float64(watchers - feeds)
	})
	gauge("watchers_total", "Watchers of clients.", func() float64 {
		watchers, _, _ := p.hub.stats()
		return float64(watchers)
	})
	gauge("upstream_watches_total", "Watches on members.", func() float64 {
		_, feeds, _ := p.hub.stats()
		return float64(feeds)
	})
	gauge("upstream_keepalive_streams_total", "Keep-alive streams to members.", func() float64 { return float64(p.renewals.streams()) })
	m.registry.MustRegister(
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "etcd", Subsystem: "grpc_proxy", Name: "events_coalescing_total", Help: "Events given to watchers beyond those that members have sent.",
		}, func() float64 {
			_, _, saved := p.hub.stats()
			return float64(saved)
		}),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// stats are the figures for metrics.
func (h *hub) stats() (watchers, feeds, saved int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.watchers, h.feeds, h.saved
}
