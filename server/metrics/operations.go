package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Operations observes what a member does for its clients.
type Operations struct {
	Defragment, Snapshot, Hash, HashKV prometheus.Histogram // seconds
	LeaseTTL                           prometheus.Histogram // seconds of TTL
	Compaction                         prometheus.Histogram // milliseconds

	LeasesGranted, LeasesRevoked, LeasesRenewed, LeasesExpired prometheus.Counter
	HealthSuccess, HealthFailures                              prometheus.Counter
	Promotions                                                 prometheus.Counter
	SnapshotApplying, CompactedAt                              prometheus.Gauge

	apply, request   *cache[*outcome]
	ranges           *outcome
	checks           *prometheus.GaugeVec
	checksTotal      *prometheus.CounterVec
	promotionsFailed *prometheus.CounterVec
	clusterVersion   *prometheus.GaugeVec
	version          string // owner: applier
}

// outcome is a duration, apart by success.
type outcome struct{ failed, succeeded prometheus.Observer }

func (o *outcome) observe(took time.Duration, err error) {
	if err != nil {
		o.failed.Observe(took.Seconds())
		return
	}
	o.succeeded.Observe(took.Seconds())
}

func newOperations(s *Set) *Operations {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		s.registry.MustRegister(c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
		s.registry.MustRegister(g)
		return g
	}
	o := &Operations{
		Defragment:       s.histogram("etcd_disk_backend_defrag_duration_seconds", "Seconds that a defragmentation took.", 0.1, 13),
		Snapshot:         s.histogram("etcd_disk_backend_snapshot_duration_seconds", "Seconds that a snapshot for a client took.", 0.01, 17),
		Hash:             s.histogram("etcd_mvcc_hash_duration_seconds", "Seconds that a hash of the database took.", 0.01, 15),
		HashKV:           s.histogram("etcd_mvcc_hash_rev_duration_seconds", "Seconds that a hash of the revisions took.", 0.01, 15),
		LeaseTTL:         s.histogram("etcd_debugging_lease_ttl_total", "TTL of leases in seconds.", 1, 24),
		Compaction:       s.histogram("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds", "Milliseconds that a compaction took.", 100, 14),
		LeasesGranted:    counter("etcd_debugging_lease_granted_total", "Leases granted."),
		LeasesRevoked:    counter("etcd_debugging_lease_revoked_total", "Leases revoked."),
		LeasesRenewed:    counter("etcd_debugging_lease_renewed_total", "Renewals by this member as the leader."),
		LeasesExpired:    counter("etcd_debugging_server_lease_expired_total", "Leases that ended by their time."),
		HealthSuccess:    counter("etcd_server_health_success", "Answers of /health that were good."),
		HealthFailures:   counter("etcd_server_health_failures", "Answers of /health that were bad."),
		Promotions:       counter("etcd_server_learner_promote_successes", "Learners promoted by this member as the leader."),
		SnapshotApplying: gauge("etcd_server_snapshot_apply_in_progress_total", "1 while a snapshot of the leader is put in place."),
		CompactedAt:      gauge("etcd_debugging_mvcc_db_compaction_last", "Unix time of the last compaction's end."),
	}
	o.vectors(s)
	return o
}

// vectors makes the metrics with labels.
func (o *Operations) vectors(s *Set) {
	o.checks = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "etcd_server_healthcheck", Help: "Last result of a check."}, []string{"type", "name"})
	o.checksTotal = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "etcd_server_healthchecks_total", Help: "Checks by their result."}, []string{"type", "name", "status"})
	o.promotionsFailed = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "etcd_server_learner_promote_failures", Help: "Promotions refused, by reason."}, []string{"Reason"})
	o.clusterVersion = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "etcd_cluster_version", Help: "1 for the version of the cluster, 0 for former ones."}, []string{"cluster_version"})
	apply := durations("etcd_server_apply_duration_seconds", "Seconds that applying a command took.", 0.0001, 20, "version", "op", "success")
	request := durations("etcd_server_request_duration_seconds", "Seconds from a request's proposal, or a read's begin, to its answer.", 0.001, 14, "type", "success")
	ranges := durations("etcd_server_range_duration_seconds", "Seconds that the store took for a range.", 0.0001, 20, "success")
	s.registry.MustRegister(o.checks, o.checksTotal, o.promotionsFailed, o.clusterVersion, apply, request, ranges)
	o.apply = newCache(func(op string) *outcome {
		return &outcome{apply.WithLabelValues("v3", op, "false"), apply.WithLabelValues("v3", op, "true")}
	})
	o.request = newCache(func(kind string) *outcome {
		return &outcome{request.WithLabelValues(kind, "false"), request.WithLabelValues(kind, "true")}
	})
	o.ranges = &outcome{ranges.WithLabelValues("false"), ranges.WithLabelValues("true")}
}

func durations(name, help string, start float64, count int, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(start, 2, count)}, labels)
}

// Applied observes one command, by the name of its kind.
func (o *Operations) Applied(op string, took time.Duration, err error) {
	o.apply.get(op).observe(took, err)
}

// Requested observes one request, by the name of its kind.
func (o *Operations) Requested(kind string, took time.Duration, err error) {
	o.request.get(kind).observe(took, err)
}

// Ranged observes one range of the store.
func (o *Operations) Ranged(took time.Duration, err error) { o.ranges.observe(took, err) }

// Checked notes the result of a check of /livez or /readyz.
func (o *Operations) Checked(kind, name string, err error) {
	value, result := 1.0, "success"
	if err != nil {
		value, result = 0, "error"
	}
	o.checks.WithLabelValues(kind, name).Set(value)
	o.checksTotal.WithLabelValues(kind, name, result).Inc()
}

// NotPromoted counts a promotion that this member as the leader refused.
func (o *Operations) NotPromoted(err error) { o.promotionsFailed.WithLabelValues(err.Error()).Inc() }

// ClusterVersion notes a new version of the cluster; the applier alone calls it
// once the member runs.
func (o *Operations) ClusterVersion(v string) {
	if o.version != "" {
		o.clusterVersion.WithLabelValues(o.version).Set(0)
	}
	if o.version = v; v != "" {
		o.clusterVersion.WithLabelValues(v).Set(1)
	}
}

// FeatureGates tells which features are on.
func (s *Set) FeatureGates(on map[string]bool, stage func(name string) string) {
	gates := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "etcd_server_feature_enabled", Help: "Whether a feature is on."}, []string{"name", "stage"})
	for name, enabled := range on {
		row := gates.WithLabelValues(name, stage(name))
		if enabled {
			row.Set(1)
		}
	}
	s.registry.MustRegister(gates)
}
