package server

import (
	"fmt"
	"runtime"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kvorum/kvorum/internal/version"
)

// registerMetrics names the numbers of this member as etcd does.
func (s *Server) registerMetrics() {
	m := s.metrics
	flag := func(on bool) float64 {
		if on {
			return 1
		}
		return 0
	}
	m.Info("etcd_server_version", "The API version that is implemented.", "server_version", version.API)
	m.Info("kvorum_server_version", "The version of this software.", "kvorum_version", version.Kvorum)
	m.Info("etcd_server_go_version", "The Go version of the build.", "server_go_version", runtime.Version())
	m.Info("etcd_server_id", "The member ID.", "server_id", strconv.FormatUint(uint64(s.self), 16))
	m.Gauge("etcd_server_has_leader", "Whether this member sees a leader.", func() float64 { return flag(s.node.Leader() != 0) })
	m.Gauge("etcd_server_is_leader", "Whether this member leads.", func() float64 { return flag(s.leading()) })
	m.Gauge("etcd_server_is_learner", "Whether this member is a learner.", func() float64 { return flag(s.learner.Load()) })
	m.Counter("etcd_server_leader_changes_seen_total", "Elections seen since the start.", func() float64 { return float64(s.leaderChanges.Load()) })
	m.Gauge("etcd_server_proposals_committed_total", "The commit index.", func() float64 { return float64(s.node.Commit()) })
	m.Gauge("etcd_server_proposals_applied_total", "The applied index.", func() float64 { return float64(s.progress.applied.Load()) })
	m.Gauge("etcd_server_proposals_pending", "Proposals in flight.", func() float64 { return float64(s.waiters.len()) })
	m.Counter("etcd_server_proposals_failed_total", "Proposals that failed or timed out.", func() float64 { return float64(s.proposalsFailed.Load()) })
	m.Counter("etcd_server_read_indexes_failed_total", "Read-index rounds that failed.", func() float64 { return float64(s.readIndexFailed.Load()) })
	m.Counter("etcd_server_slow_apply_total", "Batches that took long to apply.", func() float64 { return float64(s.slowApplies.Load()) })
	m.Gauge("etcd_server_quota_backend_bytes", "The quota of the database in bytes.", func() float64 { return float64(s.cfg.quotaBytes()) })
	s.registerStoreMetrics()
	m.Register(peerCollector{s})
}

func (s *Server) registerStoreMetrics() {
	m := s.metrics
	m.Gauge("etcd_mvcc_db_total_size_in_bytes", "Bytes of the database file.", func() float64 { return float64(s.store.Stats().SizeBytes) })
	m.Gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Bytes of the database file in use.", func() float64 { return float64(s.store.Stats().InUseBytes) })
	m.Gauge("etcd_debugging_mvcc_keys_total", "Live keys.", func() float64 { return float64(s.store.Stats().Keys) })
	m.Gauge("etcd_debugging_mvcc_current_revision", "The current revision.", func() float64 { return float64(s.store.Revision()) })
	m.Gauge("etcd_debugging_mvcc_compact_revision", "The revision of the last compaction.", func() float64 { return float64(s.store.CompactRevision()) })
	m.Gauge("etcd_debugging_mvcc_watch_stream_total", "Watch streams.", func() float64 { return float64(s.store.WatchStats().Streams) })
	m.Gauge("etcd_debugging_mvcc_watcher_total", "Watchers.", func() float64 { return float64(s.store.WatchStats().Watchers) })
	m.Gauge("etcd_debugging_mvcc_slow_watcher_total", "Watchers that are behind.", func() float64 { return float64(s.store.WatchStats().Behind) })
	m.Gauge("etcd_debugging_mvcc_pending_events_total", "Events waiting to be sent.", func() float64 { return float64(s.store.WatchStats().Pending) })
	m.Counter("etcd_debugging_mvcc_events_total", "Events published.", func() float64 { return float64(s.store.WatchStats().Events) })
}

// peerCollector reads the transport's counters when Prometheus asks.
type peerCollector struct{ s *Server }

// Describe implements prometheus.Collector; the labels are known only later.
func (peerCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c peerCollector) Collect(out chan<- prometheus.Metric) {
	self := fmt.Sprintf("%x", uint64(c.s.self))
	emit := func(name, help string, kind prometheus.ValueType, value float64, labels ...string) {
		var names, values []string
		for i := 0; i < len(labels); i += 2 {
			names, values = append(names, labels[i]), append(values, labels[i+1])
		}
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, names, nil), kind, value, values...)
	}
	for _, p := range c.s.transport.Stats() {
		id, active := strconv.FormatUint(p.ID, 16), 0.0
		if p.Active {
			active = 1
		}
		emit("etcd_network_active_peers", "Whether a member is connected.", prometheus.GaugeValue, active, "Local", self, "Remote", id)
		emit("etcd_network_known_peers", "Members known.", prometheus.GaugeValue, 1, "Local", self, "Remote", id)
		emit("etcd_network_disconnected_peers_total", "Times that a member was lost.", prometheus.CounterValue, float64(p.Disconnected), "Local", self, "Remote", id)
		emit("etcd_network_peer_sent_bytes_total", "Bytes sent to a member.", prometheus.CounterValue, float64(p.SentBytes), "To", id)
		emit("etcd_network_peer_received_bytes_total", "Bytes received from a member.", prometheus.CounterValue, float64(p.ReceivedBytes), "From", id)
		emit("etcd_network_peer_sent_failures_total", "Messages to a member that were lost.", prometheus.CounterValue, float64(p.SendFailures), "To", id)
		emit("etcd_network_peer_received_failures_total", "Messages of a member that were not taken.", prometheus.CounterValue, float64(p.ReceiveFailures), "From", id)
	}
}
