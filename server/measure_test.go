package server

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// wantedMetric is a row of testdata/metrics.txt: a metric that etcd has.
type wantedMetric struct{ name, kind, labels, buckets, absent string }

func wantedMetrics(t *testing.T) []wantedMetric {
	t.Helper()
	var rows []wantedMetric
	for line := range strings.Lines(string(must[[]byte](t)(os.ReadFile("testdata/metrics.txt")))) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(strings.TrimSpace(line)+" | | | |", "|")
		for i := range f {
			f[i] = strings.TrimSpace(f[i])
		}
		rows = append(rows, wantedMetric{f[0], f[1], f[2], f[3], f[4]})
	}
	return rows
}

// useEverything makes calls that move the metrics which move only then.
func useEverything(t *testing.T, m *testMember) {
	t.Helper()
	kv, lease, maintenance := pb.NewKVClient(m.conn), pb.NewLeaseClient(m.conn), pb.NewMaintenanceClient(m.conn)
	m.v2set("/a", "1")
	for _, r := range [][2]string{{"GET", "/a"}, {"GET", "/b"}, {"GET", "/?recursive=true"}, {"DELETE", "/b"}} {
		m.v2(r[0], "/v2/keys"+r[1], nil)
	}
	put := must[*pb.PutResponse](t)(kv.Put(m.ctx, &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}))
	must[*pb.RangeResponse](t)(kv.Range(m.ctx, &pb.RangeRequest{Key: []byte("k")}))
	must[*pb.TxnResponse](t)(kv.Txn(m.ctx, &pb.TxnRequest{}))
	must[*pb.CompactionResponse](t)(kv.Compact(m.ctx, &pb.CompactionRequest{Revision: put.Header.Revision, Physical: true}))
	must[*pb.LeaseGrantResponse](t)(lease.LeaseGrant(m.ctx, &pb.LeaseGrantRequest{ID: 7, TTL: 100}))
	must[*pb.LeaseRevokeResponse](t)(lease.LeaseRevoke(m.ctx, &pb.LeaseRevokeRequest{ID: 7}))
	must[*pb.HashResponse](t)(maintenance.Hash(m.ctx, &pb.HashRequest{}))
	must[*pb.HashKVResponse](t)(maintenance.HashKV(m.ctx, &pb.HashKVRequest{}))
	must[*pb.DefragmentResponse](t)(maintenance.Defragment(m.ctx, &pb.DefragmentRequest{}))
	if _, err := pb.NewClusterClient(m.conn).MemberPromote(m.ctx, &pb.MemberPromoteRequest{ID: uint64(m.self)}); err == nil {
		t.Fatal("a voter was promoted")
	}
	if _, err := kv.Put(m.ctx, &pb.PutRequest{Key: []byte("k"), Lease: 99}); err == nil {
		t.Fatal("a put under a lease that does not exist was accepted")
	}
	if err := m.transport.Add(0x7b, []string{"http://127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{nil, io.ErrUnexpectedEOF} {
		m.metrics.Peers.RoundTrip(0x7b, time.Second)
		m.metrics.Peers.SnapshotSend(0x7b, time.Second, err)
		m.metrics.Peers.SnapshotReceive(0x7b, time.Second, err)
	}
	must[*pb.AlarmResponse](t)(maintenance.Alarm(m.ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: uint64(m.self), Alarm: pb.AlarmType_NOSPACE}))
	m.get("/readyz")
	m.get("/metrics") // the second time counts the first
}

func (m *testMember) get(path string) io.Reader {
	m.t.Helper()
	r := must[*http.Request](m.t)(http.NewRequestWithContext(m.ctx, http.MethodGet, "http://"+m.clientListeners[0].Addr().String()+path, nil))
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		m.t.Fatal(err)
	}
	defer answer.Body.Close()
	return strings.NewReader(string(must[[]byte](m.t)(io.ReadAll(answer.Body))))
}

func (m *testMember) scrape() map[string]*dto.MetricFamily {
	m.t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	return must[map[string]*dto.MetricFamily](m.t)(parser.TextToMetricFamilies(m.get("/metrics")))
}

// If this fails, a dashboard or an alert made for etcd shows nothing, or lies.
func TestMetricsAreNamedAsInEtcd(t *testing.T) {
	m := startMember(t, func(c *Config) { c.Metrics = MetricsExtensive })
	useEverything(t, m)
	families := m.scrape()
	seen := 0
	for _, want := range wantedMetrics(t) {
		got := families[want.name]
		switch {
		case want.absent != "" && got != nil:
			t.Errorf("%s is there, though testdata/metrics.txt says why not", want.name)
		case want.absent != "" || want.name == "etcd_network_server_stream_failures_total": // appears with a failure
		case got == nil:
			t.Errorf("%s is absent", want.name)
		default:
			seen++
			checkFamily(t, want, got)
		}
	}
	if seen < 100 {
		t.Errorf("only %d metrics were compared", seen)
	}
	page := compatPage(wantedMetrics(t))
	if os.Getenv("KVORUM_UPDATE") != "" {
		if err := os.WriteFile("../docs/compat-metrics.md", []byte(page), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if string(must[[]byte](t)(os.ReadFile("../docs/compat-metrics.md"))) != page {
		t.Error("docs/compat-metrics.md differs from testdata/metrics.txt; run KVORUM_UPDATE=1 go test ./server -run TestMetricsAreNamedAsInEtcd")
	}
}

func checkFamily(t *testing.T, want wantedMetric, got *dto.MetricFamily) {
	t.Helper()
	if kind := strings.ToLower(got.GetType().String()); kind != want.kind {
		t.Errorf("%s is a %s, want a %s", want.name, kind, want.kind)
	}
	for _, row := range got.Metric {
		var labels []string
		for _, l := range row.Label {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		if s := strings.Join(labels, ","); s != want.labels {
			t.Errorf("%s has the labels %q, want %q", want.name, s, want.labels)
		}
		if want.buckets == "" {
			continue
		}
		var first float64
		var count int
		if _, err := fmt.Sscanf(want.buckets, "%g x %d", &first, &count); err != nil {
			t.Fatalf("%s: buckets %q: %v", want.name, want.buckets, err)
		}
		buckets := row.GetHistogram().Bucket
		if len(buckets) != count+1 {
			t.Errorf("%s has %d buckets, want %d and one for all", want.name, len(buckets), count)
			continue
		}
		for i := range count {
			if bound := first * float64(uint64(1)<<i); buckets[i].GetUpperBound() < bound*0.999999 || buckets[i].GetUpperBound() > bound*1.000001 {
				t.Errorf("%s: bucket %d ends at %g, want %g", want.name, i, buckets[i].GetUpperBound(), bound)
			}
		}
	}
}

// compatPage is docs/compat-metrics.md.
func compatPage(rows []wantedMetric) string {
	var absent, there strings.Builder
	for _, r := range rows {
		if r.absent != "" {
			fmt.Fprintf(&absent, "| %s | %s |\n", r.name, r.absent)
		} else {
			fmt.Fprintf(&there, "| %s | %s | %s |\n", r.name, r.kind, r.labels)
		}
	}
	return "# Metrics: what of etcd's is there\n\nWritten by `TestMetricsAreNamedAsInEtcd`, which scrapes a member and compares.\n\n" +
		"## Absent\n\n| metric | why |\n|---|---|\n" + absent.String() +
		"\n## There, with etcd's type, labels and buckets\n\n| metric | type | labels |\n|---|---|---|\n" + there.String()
}

// If this fails, the numbers move when they should not, or do not when they
// should.
func TestMetricsMove(t *testing.T) {
	m := startMember(t, nil)
	before := m.scrape()
	if self := hexID(uint64(m.self)); valueOf(before, "etcd_network_known_peers", "Local="+self+" Remote="+self) != 1 {
		t.Error("a member does not know itself")
	}
	if before["grpc_server_handling_seconds"] != nil {
		t.Error("the basic metrics have durations of RPCs")
	}
	useEverything(t, m)
	after := m.scrape()
	for _, c := range []struct {
		name, labels string
		by           float64
	}{
		{"grpc_server_started_total", "grpc_method=Put grpc_service=etcdserverpb.KV grpc_type=unary", 2},
		{"grpc_server_handled_total", "grpc_code=OK grpc_method=Put grpc_service=etcdserverpb.KV grpc_type=unary", 1},
		{"grpc_server_handled_total", "grpc_code=NotFound grpc_method=Put grpc_service=etcdserverpb.KV grpc_type=unary", 1},
		{"grpc_server_msg_sent_total", "grpc_method=Put grpc_service=etcdserverpb.KV grpc_type=unary", 1},
		{"grpc_server_msg_received_total", "grpc_method=Put grpc_service=etcdserverpb.KV grpc_type=unary", 2},
		{"etcd_debugging_lease_granted_total", "", 1},
		{"etcd_debugging_lease_revoked_total", "", 1},
		{"etcd_mvcc_put_total", "", 2},
		{"etcd_debugging_store_reads_total", "action=get", 2},
		{"etcd_debugging_store_reads_failed_total", "action=get", 1},
		{"etcd_debugging_store_reads_total", "action=getRecursive", 1},
		{"etcd_debugging_store_writes_total", "action=set", 1},
		{"etcd_debugging_store_writes_failed_total", "action=delete", 1},
		{"etcd_disk_backend_defrag_duration_seconds", "", 1},
		{"etcd_server_request_duration_seconds", "success=true type=Put", 1},
		{"etcd_server_request_duration_seconds", "success=false type=Put", 1},
		{"etcd_server_request_duration_seconds", "success=true type=Range", 1},
		{"etcd_server_apply_duration_seconds", "op=LeaseGrant success=true version=v3", 1},
		{"etcd_server_apply_duration_seconds", "op=Put success=false version=v3", 1},
	} {
		if by := valueOf(after, c.name, c.labels) - valueOf(before, c.name, c.labels); by != c.by {
			t.Errorf("%s{%s} grew by %g, want %g", c.name, c.labels, by, c.by)
		}
	}
	if sent := valueOf(after, "etcd_network_client_grpc_sent_bytes_total", ""); sent < 50 {
		t.Errorf("%g bytes were sent to clients", sent)
	}
}

// valueOf is a number, or the count of a histogram; 0 when there is no row.
func valueOf(families map[string]*dto.MetricFamily, name, labels string) float64 {
	for _, row := range families[name].GetMetric() {
		var got []string
		for _, l := range row.Label {
			got = append(got, l.GetName()+"="+l.GetValue())
		}
		slices.Sort(got)
		if strings.Join(got, " ") == labels {
			return row.GetCounter().GetValue() + row.GetGauge().GetValue() + float64(row.GetHistogram().GetSampleCount())
		}
	}
	return 0
}
