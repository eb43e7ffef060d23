package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kvorum/kvorum/server/v2http"
)

// v2Collector reads what the v2 API counts when Prometheus asks.
type v2Collector struct{ api *v2http.Handler }

// Describe implements prometheus.Collector; what there is Collect tells.
func (v2Collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c v2Collector) Collect(out chan<- prometheus.Metric) {
	emit := func(name, help string, kind prometheus.ValueType, value uint64, action ...string) {
		var labels []string
		if action != nil {
			labels = []string{"action"}
		}
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("etcd_debugging_store_"+name, help, labels, nil), kind, float64(value), action...)
	}
	for _, a := range c.api.Reads() {
		emit("reads_total", "v2 reads asked of this member.", prometheus.CounterValue, a.All, a.Action)
		emit("reads_failed_total", "v2 reads asked of this member that failed.", prometheus.CounterValue, a.Failed, a.Action)
	}
	for _, a := range c.api.Writes() {
		emit("writes_total", "v2 writes asked of this member.", prometheus.CounterValue, a.All, a.Action)
		emit("writes_failed_total", "v2 writes asked of this member that failed.", prometheus.CounterValue, a.Failed, a.Action)
	}
	w := c.api.Watches()
	emit("watch_requests_total", "v2 waits for a change asked of this member.", prometheus.CounterValue, w.All)
	emit("watchers", "v2 waits for a change that are open.", prometheus.GaugeValue, w.Open)
	emit("expires_total", "v2 nodes that were removed when their time was up.", prometheus.CounterValue, c.api.Expired())
}
