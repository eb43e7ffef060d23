package server

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kvorum/kvorum/internal/version"
	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server/api"
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
	m.Counter("etcd_server_slow_read_indexes_total", "Read-index rounds that took more than half a second, or failed after it.", func() float64 { return float64(s.slowReadIndexes.Load()) })
	m.Counter("etcd_server_heartbeat_send_failures_total", "Heartbeats that this member as the leader sent late.", func() float64 { return float64(s.node.LateHeartbeats()) })
	m.Counter("etcd_server_slow_apply_total", "Batches that took long to apply.", func() float64 { return float64(s.slowApplies.Load()) })
	m.Gauge("etcd_server_quota_backend_bytes", "The quota of the database in bytes.", func() float64 { return float64(s.cfg.quotaBytes()) })
	s.registerStoreMetrics()
	s.registerScrubMetrics()
	m.Gauge("etcd_debugging_auth_revision", "The revision of users and roles.", func() float64 { return float64(s.machine.AuthStatus().Revision) })
	m.Gauge("etcd_disk_wal_write_bytes_total", "Bytes written to the log.", func() float64 { return float64(s.disk.log.Stats().BytesWritten) })
	m.Counter("etcd_network_client_grpc_received_bytes_total", "Bytes of messages from clients.", func() float64 { return float64(s.traffic.Received.Load()) })
	m.Counter("etcd_network_client_grpc_sent_bytes_total", "Bytes of messages to clients.", func() float64 { return float64(s.traffic.Sent.Load()) })
	m.Gauge("etcd_disk_defrag_inflight", "Defragmentations under way.", func() float64 {
		return float64(m.RPCs.Open(pb.Maintenance_Defragment_FullMethodName) + s.ownDefrags.Load())
	})
	m.Gauge("os_fd_limit", "Most open files.", func() float64 { return float64(filesMax()) })
	m.Gauge("os_fd_used", "Open files.", func() float64 { return float64(filesOpen()) })
	m.FeatureGates(s.cfg.gates(), featureStage)
	m.ClusterVersion(clusterVersionLabel(s.machine.ClusterVersion()))
	if s.cfg.Metrics == MetricsExtensive {
		m.Extensive()
	}
	m.RPCs.Ended = s.rpcEnded
	m.Register(peerCollector{s})
	m.Register(alarmCollector{s})
}

// clusterVersionLabel is 3.7 of 3.7.0.
func clusterVersionLabel(v string) string {
	if parts := strings.SplitN(v, ".", 3); len(parts) == 3 {
		return parts[0] + "." + parts[1]
	}
	return v
}

func filesMax() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return limit.Cur
}

func filesOpen() int {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(names)
}

// rpcEnded observes what is known only of a whole RPC.
func (s *Server) rpcEnded(ctx context.Context, method string, request, response any, took time.Duration, err error) {
	m := s.metrics
	switch r := request.(type) {
	case *pb.RangeRequest:
		m.Requested("Range", took, err)
	case *pb.TxnRequest:
		if api.OnlyReads(r) {
			m.Requested("ReadonlyTxn", took, err)
		}
	case *pb.DefragmentRequest:
		m.Defragment.Observe(took.Seconds())
		return // slow by its nature
	case *pb.HashRequest:
		m.Hash.Observe(took.Seconds())
	case *pb.HashKVRequest:
		m.HashKV.Observe(took.Seconds())
	case nil:
		if method == pb.Maintenance_Snapshot_FullMethodName {
			m.Snapshot.Observe(took.Seconds())
		}
		return
	}
	if took >= s.cfg.SlowRequest && s.cfg.SlowRequest > 0 {
		s.slowRequest(ctx, method, request, response, took, err)
	}
}

// followCompaction measures a compaction until it is done on disk.
func (s *Server) followCompaction(to mvcc.Revision) {
	began, done := time.Now(), s.store.CompactionDone(to)
	s.background.Go(func() {
		select {
		case <-done:
			s.metrics.Compaction.Observe(float64(time.Since(began).Milliseconds()))
			s.metrics.CompactedAt.SetToCurrentTime()
			stats := s.store.Stats()
			s.log.Info("finished scheduled compaction", "compact-revision", int64(to), "took", time.Since(began),
				"current-db-size-bytes", stats.SizeBytes, "current-db-size-in-use-bytes", stats.InUseBytes)
		case <-s.stopping:
		}
	})
}

// alarmCollector reads the active alarms when Prometheus asks.
type alarmCollector struct{ s *Server }

// Describe implements prometheus.Collector; the labels are known only later.
func (alarmCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c alarmCollector) Collect(out chan<- prometheus.Metric) {
	desc := prometheus.NewDesc("etcd_debugging_server_alarms", "Active alarms.", []string{"server_id", "alarm_type"}, nil)
	for _, a := range c.s.machine.Alarms(pb.AlarmType_NONE) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, 1, strconv.FormatUint(a.MemberID, 16), a.Alarm.String())
	}
}

func (s *Server) registerStoreMetrics() {
	m := s.metrics
	m.Gauge("etcd_mvcc_db_total_size_in_bytes", "Bytes of the database file.", func() float64 { return float64(s.store.Stats().SizeBytes) })
	m.Gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Bytes of the database file in use.", func() float64 { return float64(s.store.Stats().InUseBytes) })
	m.Gauge("etcd_mvcc_db_open_read_transactions", "Open reads of the database file.", func() float64 { return float64(s.store.Stats().OpenReads) })
	m.Gauge("etcd_debugging_mvcc_total_put_size_in_bytes", "Bytes of keys and values in the puts seen by this member.", func() float64 { return float64(s.store.Stats().PutBytes) })
	m.Counter("etcd_mvcc_put_total", "Puts seen by this member.", func() float64 { return float64(s.store.Stats().Puts) })
	m.Counter("etcd_mvcc_delete_total", "Deletes seen by this member.", func() float64 { return float64(s.store.Stats().Deletes) })
	m.Counter("etcd_mvcc_range_total", "Ranges seen by this member.", func() float64 { return float64(s.store.Stats().Ranges) })
	m.Counter("etcd_mvcc_txn_total", "Transactions seen by this member.", func() float64 { return float64(s.store.Stats().Txns) })
	m.Counter("etcd_debugging_mvcc_db_compaction_keys_total", "Revisions compacted.", func() float64 { return float64(s.store.Stats().CompactedRevisions) })
	m.Gauge("etcd_debugging_mvcc_keys_total", "Live keys.", func() float64 { return float64(s.store.Stats().Keys) })
	m.Gauge("etcd_debugging_mvcc_current_revision", "The current revision.", func() float64 { return float64(s.store.Revision()) })
	m.Gauge("etcd_debugging_mvcc_compact_revision", "The revision of the last compaction.", func() float64 { return float64(s.store.CompactRevision()) })
	m.Gauge("etcd_debugging_mvcc_watch_stream_total", "Watch streams.", func() float64 { return float64(s.store.WatchStats().Streams) })
	m.Gauge("etcd_debugging_mvcc_watcher_total", "Watchers.", func() float64 { return float64(s.store.WatchStats().Watchers) })
	m.Gauge("etcd_debugging_mvcc_slow_watcher_total", "Watchers that are behind.", func() float64 { return float64(s.store.WatchStats().Behind) })
	m.Gauge("etcd_debugging_mvcc_pending_events_total", "Events waiting to be sent.", func() float64 { return float64(s.store.WatchStats().Pending) })
	m.Counter("kvorum_watch_history_records_total", "Records of history looked at for watchers that were behind.", func() float64 { return float64(s.store.Stats().HistoryRecords) })
	m.Counter("kvorum_watch_history_events_total", "Events found in them.", func() float64 { return float64(s.store.Stats().HistoryEvents) })
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
	const known = "etcd_network_known_peers"
	emit(known, "Members known.", prometheus.GaugeValue, 1, "Local", self, "Remote", self) // etcd counts the member itself
	for _, p := range c.s.transport.Stats() {
		id, active := strconv.FormatUint(p.ID, 16), 0.0
		if p.Active {
			active = 1
		}
		emit("etcd_network_active_peers", "Whether a member is connected.", prometheus.GaugeValue, active, "Local", self, "Remote", id)
		emit(known, "Members known.", prometheus.GaugeValue, 1, "Local", self, "Remote", id)
		emit("etcd_network_disconnected_peers_total", "Times that a member was lost.", prometheus.CounterValue, float64(p.Disconnected), "Local", self, "Remote", id)
		emit("etcd_network_peer_sent_bytes_total", "Bytes sent to a member.", prometheus.CounterValue, float64(p.SentBytes), "To", id)
		emit("etcd_network_peer_received_bytes_total", "Bytes received from a member.", prometheus.CounterValue, float64(p.ReceivedBytes), "From", id)
		emit("etcd_network_peer_sent_failures_total", "Messages to a member that were lost.", prometheus.CounterValue, float64(p.SendFailures), "To", id)
		emit("etcd_network_snapshot_send_inflights_total", "Snapshots being sent to a member.", prometheus.GaugeValue, float64(p.SnapshotsSending), "To", id)
		emit("etcd_network_snapshot_receive_inflights_total", "Snapshots being received from a member.", prometheus.GaugeValue, float64(p.SnapshotsBeingReceived), "From", id)
		emit("etcd_network_peer_received_failures_total", "Messages of a member that were not taken.", prometheus.CounterValue, float64(p.ReceiveFailures), "From", id)
	}
}
