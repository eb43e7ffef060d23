package server

import (
	"testing"
	"time"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// If this fails, an operator who looks for what is slow sees nothing where the
// time goes.
func TestStepsAreMeasured(t *testing.T) {
	m := startMember(t, func(c *Config) { c.SnapshotCount, c.BatchInterval = 5, 5*time.Millisecond })
	watch := must[pb.Watch_WatchClient](t)(pb.NewWatchClient(m.conn).Watch(m.ctx))
	ask := func(r *pb.WatchRequest) {
		t.Helper()
		if err := watch.Send(r); err != nil {
			t.Fatal(err)
		}
	}
	ask(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("k")}}})
	must[*pb.WatchResponse](t)(watch.Recv())
	ask(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
	must[*pb.WatchResponse](t)(watch.Recv())
	kv := pb.NewKVClient(m.conn)
	for range 20 {
		must[*pb.PutResponse](t)(kv.Put(m.ctx, &pb.PutRequest{Key: []byte("k"), Value: []byte("four")}))
		must[*pb.WatchResponse](t)(watch.Recv())
	}
	must[*pb.CompactionResponse](t)(kv.Compact(m.ctx, &pb.CompactionRequest{Revision: 10, Physical: true}))
	wanted := map[string]float64{
		"etcd_debugging_mvcc_total_put_size_in_bytes":                                   20 * 5,
		"etcd_debugging_disk_backend_commit_rebalance_duration_seconds":                 1,
		"etcd_debugging_disk_backend_commit_spill_duration_seconds":                     1,
		"etcd_debugging_disk_backend_commit_write_duration_seconds":                     1,
		"etcd_disk_backend_commit_duration_seconds":                                     1,
		"etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds":                 1,
		"etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds":              1,
		"etcd_debugging_server_watch_send_loop_control_stream_duration_seconds":         1,
		"etcd_debugging_server_watch_send_loop_progress_duration_seconds":               1,
		"etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds":           20,
		"etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds": 20,
		"etcd_debugging_snap_save_marshalling_duration_seconds":                         1,
		"etcd_debugging_snap_save_total_duration_seconds":                               1,
		"etcd_snap_fsync_duration_seconds":                                              1,
	}
	ticker, deadline := time.NewTicker(20*time.Millisecond), time.Now().Add(testWait)
	defer ticker.Stop()
	for {
		families := m.scrape()
		for name, least := range wanted {
			if valueOf(families, name, "") >= least {
				delete(wanted, name)
			}
		}
		if len(wanted) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("these have not moved: %v", wanted)
		}
		<-ticker.C
	}
	if sum := m.scrape()["etcd_debugging_disk_backend_commit_write_duration_seconds"].Metric[0].Histogram.GetSampleSum(); sum <= 0 {
		t.Error("writing the pages of commits took no time at all")
	}
}
