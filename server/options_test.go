package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server/api"
	"github.com/kvorum/kvorum/server/state"
)

// value is a metric without labels, 0 while it is not there.
func (m *testMember) value(name string) float64 {
	m.t.Helper()
	total := 0.0
	for line := range strings.Lines(string(must[[]byte](m.t)(io.ReadAll(m.get("/metrics"))))) {
		metric, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		if base, _, _ := strings.Cut(metric, "{"); base == name {
			total += must[float64](m.t)(strconv.ParseFloat(text, 64))
		}
	}
	return total
}

func (m *testMember) put(key, value string) int64 {
	m.t.Helper()
	r := must[*pb.PutResponse](m.t)(pb.NewKVClient(m.conn).Put(m.ctx, &pb.PutRequest{Key: []byte(key), Value: []byte(value)}))
	return r.Header.Revision
}

// If this fails, a member waits for its disk although it was told not to, or does
// not although it was told nothing.
func TestUnsafeNoFsync(t *testing.T) {
	t.Parallel()
	for _, unsafe := range []bool{true, false} {
		m := startMember(t, func(c *Config) { c.UnsafeNoFsync = unsafe })
		m.put("k", "v")
		if n := m.value("etcd_disk_wal_fsync_duration_seconds_count"); (n == 0) != unsafe {
			t.Errorf("unsafe-no-fsync=%t: %v syncs of the log", unsafe, n)
		}
	}
}

// If this fails, a cluster that has lost its quorum for good cannot be brought
// back from one member.
func TestForceNewCluster(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	members := startMembers(t, 3, func(c *Config) {
		if c.Name == "m0" {
			c.DataDir = dir
		}
	})
	members[0].put("k", "v")
	cluster := members[0].cluster
	for _, m := range members {
		m.stop()
	}
	alone := startMember(t, func(c *Config) { c.Name, c.DataDir, c.ForceNewCluster = "m0", dir, true })
	r := must[*pb.RangeResponse](t)(pb.NewKVClient(alone.conn).Range(alone.ctx, &pb.RangeRequest{Key: []byte("k")}))
	if len(r.Kvs) != 1 || alone.cluster != cluster || alone.self != members[0].self {
		t.Errorf("%d keys, cluster %x, member %x; want 1, %x, %x", len(r.Kvs), alone.cluster, uint64(alone.self), cluster, uint64(members[0].self))
	}
	list := must[*pb.MemberListResponse](t)(pb.NewClusterClient(alone.conn).MemberList(alone.ctx, &pb.MemberListRequest{Linearizable: true}))
	if len(list.Members) != 1 {
		t.Errorf("members: %v", list.Members)
	}
	alone.put("k", "w")
}

// If this fails, a database full of free pages keeps the disk full, or every
// start takes as long as a defragmentation.
func TestDefragmentationAtStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := startMember(t, func(c *Config) { c.DataDir = dir })
	for i := range 30 {
		m.put(fmt.Sprint("k", i), strings.Repeat("x", 100_000))
	}
	gone := must[*pb.DeleteRangeResponse](t)(pb.NewKVClient(m.conn).DeleteRange(m.ctx, &pb.DeleteRangeRequest{Key: []byte("k"), RangeEnd: []byte("l")}))
	must[*pb.CompactionResponse](t)(pb.NewKVClient(m.conn).Compact(m.ctx, &pb.CompactionRequest{Revision: gone.Header.Revision, Physical: true}))
	m.stop()
	sizes := map[uint]int64{}
	for _, megabytes := range []uint{0, 1000, 2} {
		m := startMember(t, func(c *Config) { c.DataDir, c.BootDefragMegabytes = dir, megabytes })
		m.put("other", "v")
		sizes[megabytes] = m.store.Stats().SizeBytes
		m.stop()
	}
	if sizes[1000] < 2<<20 || sizes[1000] < sizes[0] || sizes[2] > 1<<20 {
		t.Errorf("sizes by threshold in megabytes: %v; want only a threshold of 2 to free 3 MB", sizes)
	}
}

// If this fails, a cluster takes more or fewer learners than it was told.
func TestMaxLearners(t *testing.T) {
	for most := range 3 {
		m := startMember(t, func(c *Config) { c.MaxLearners = most })
		client := pb.NewClusterClient(m.conn)
		for i := range most + 1 {
			_, err := client.MemberAdd(m.ctx, &pb.MemberAddRequest{PeerURLs: []string{fmt.Sprintf("http://127.0.0.1:%d", i+1)}, IsLearner: true})
			if refused := err != nil && strings.Contains(err.Error(), state.ErrTooManyLearners.Error()); refused != (i == most) {
				t.Errorf("max-learners=%d, learner %d: %v", most, i+1, err)
			}
		}
	}
}

// If this fails, a member is added to a cluster that would lose its quorum by it,
// or an operator who knows better is refused.
func TestStrictReconfigCheck(t *testing.T) {
	t.Parallel()
	for _, strict := range []bool{true, false} {
		m := startMembers(t, 3, func(c *Config) { c.StrictReconfigCheck = strict })[0]
		m.put("k", "v")
		// The members have not been connected for long.
		_, err := m.AddMember(m.ctx, []string{"http://127.0.0.1:1"}, false)
		if errors.Is(err, api.ErrUnhealthy) != strict || (err != nil) != strict {
			t.Errorf("strict=%t: %v", strict, err)
		}
	}
}

// If this fails, a restarted cluster takes longer than it must to elect, or a
// member that was told to wait does not.
func TestElectionTickAdvance(t *testing.T) {
	t.Parallel()
	const timeout = 2 * time.Second
	elect := func(advance bool) time.Duration {
		began := time.Now()
		members := startMembers(t, 3, func(c *Config) {
			c.HeartbeatMillis, c.ElectionMillis, c.ElectionTickAdvance = 20, int(timeout/time.Millisecond), advance
		})
		leaderOf(members)
		return time.Since(began)
	}
	if took := elect(false); took < timeout {
		t.Errorf("a leader after %v, though no tick was to be skipped", took)
	}
	// Each member draws between 1 and 2 timeouts, of which all but two ticks count as passed: rarely do all draw late.
	var took time.Duration
	for range 5 {
		if took = elect(true); took < timeout {
			return
		}
	}
	t.Errorf("a leader only after %v, though ticks were to be skipped", took)
}

// If this fails, a slow follower is sent the whole database although the log
// still had what it lacked, or the log in memory is larger than it was told.
func TestSnapshotCatchUpEntries(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kept uint64
		sent bool
	}{{0, true}, {20, true}, {5000, false}} {
		dir := t.TempDir()
		var settings Config
		members := startMembers(t, 3, func(cfg *Config) {
			cfg.CatchUpEntries, cfg.SnapshotCount = c.kept, 10
			if cfg.Name == "m2" {
				cfg.DataDir = dir
				settings = *cfg
			}
		})
		late, rest := members[2], members[:2]
		late.put("k", "v")
		late.stop()
		leader := leaderOf(rest)
		for i := range 100 {
			leader.put("k", fmt.Sprint(i))
		}
		back := startMember(t, func(cfg *Config) {
			data := cfg.DataDir
			*cfg = settings
			if cfg.DataDir == "" {
				cfg.DataDir = data
			}
		})
		back.put("k", "last") // it has caught up then
		if n := leader.value("etcd_network_snapshot_send_success"); (n > 0) != c.sent {
			t.Errorf("%d entries kept: %v snapshots sent", c.kept, n)
		}
	}
}

// If this fails, history grows without end, or is gone before its time.
func TestAutoCompactionByTime(t *testing.T) {
	t.Parallel()
	const keep = time.Second
	m := startMember(t, func(c *Config) { c.AutoCompactionMode, c.AutoCompaction = CompactPeriodic, keep.String() })
	written := map[int64]time.Time{}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	m.eventually("a compaction", func() error {
		written[m.put("k", "v")] = time.Now()
		if m.store.CompactRevision() < 2 {
			return errors.New("none yet")
		}
		return nil
	})
	at, newest := m.store.CompactRevision(), m.store.Revision()
	// What was current a period ago stays readable; samples are a tenth of it apart, more on a busy machine.
	if age := time.Since(written[int64(at)+1]); age < keep/2 || at >= newest {
		t.Errorf("compacted to %d of %d, whose successor is only %v old", at, newest, age)
	}
}

// If this fails, history holds another number of revisions than it was told.
func TestAutoCompactionByRevisions(t *testing.T) {
	m := startMember(t, nil)
	for range 20 {
		m.put("k", "v")
	}
	ctx, stop := context.WithCancel(m.ctx)
	leading := false
	c := &compactor{
		keep: retention{revisions: 5}, store: m.store, leading: func() bool { return leading }, log: m.log,
		every: time.Millisecond, propose: func(ctx context.Context, r *pb.InternalRaftRequest) error {
			defer stop()
			return m.proposeInternal(ctx, r)
		},
	}
	leading = true
	if err := c.run(ctx); err != nil {
		t.Fatal(err)
	}
	if got, want := m.store.CompactRevision(), m.store.Revision()-5; got != want {
		t.Errorf("compacted to %d, want %d", got, want)
	}
}

// If this fails, clients keep sending requests to a member that is busy with a
// defragmentation.
func TestHealthServiceDuringDefragmentation(t *testing.T) {
	for _, gate := range []bool{true, false} {
		m := startMember(t, func(c *Config) {
			c.FeatureGates = map[Feature]bool{FeatureStopGRPCServiceOnDefrag: gate}
		})
		m.put("k", "v")
		watch := must[healthpb.Health_WatchClient](t)(healthpb.NewHealthClient(m.conn).Watch(m.ctx, &healthpb.HealthCheckRequest{}))
		if r := must[*healthpb.HealthCheckResponse](t)(watch.Recv()); r.Status != healthpb.HealthCheckResponse_SERVING {
			t.Fatalf("at first: %v", r.Status)
		}
		// A client sees every change until its watch is slow; so the service is looked at from inside.
		seen := make(chan healthpb.HealthCheckResponse_ServingStatus, 1)
		ctx := lookingContext{Context: m.ctx, look: func() {
			r, err := m.health.Check(m.ctx, &healthpb.HealthCheckRequest{})
			if err != nil {
				t.Error(err)
			}
			select {
			case seen <- r.GetStatus():
			default:
			}
		}}
		if err := m.Defragment(ctx); err != nil {
			t.Fatal(err)
		}
		if during := <-seen; (during == healthpb.HealthCheckResponse_NOT_SERVING) != gate {
			t.Errorf("gate %t: %v during the defragmentation", gate, during)
		}
		after := must[*healthpb.HealthCheckResponse](t)(healthpb.NewHealthClient(m.conn).Check(m.ctx, &healthpb.HealthCheckRequest{}))
		if after.Status != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("gate %t: %v afterwards", gate, after.Status)
		}
	}
}

// lookingContext looks around whenever somebody asks whether it has ended, or
// is going to.
type lookingContext struct {
	context.Context
	look func()
}

func (c lookingContext) Done() <-chan struct{} {
	c.look()
	return c.Context.Done()
}

func (c lookingContext) Err() error {
	c.look()
	return c.Context.Err()
}

// If this fails, an overloaded member cannot end leases, though that would make
// its work less.
func TestRevokesComeFirst(t *testing.T) {
	for _, gate := range []bool{true, false} {
		m := startMember(t, func(c *Config) {
			c.FeatureGates = map[Feature]bool{FeaturePriorityRequest: gate}
			c.applyLagMax = 10
		})
		m.grant(7)
		for range 20 {
			m.put("k", "v")
		}
		m.progress.applied.Store(uint64(m.node.Commit()) - 15) // as if the applier were that far behind
		_, err := pb.NewKVClient(m.conn).Put(m.ctx, &pb.PutRequest{Key: []byte("k")})
		if err == nil || !strings.Contains(err.Error(), api.ErrTooManyRequests.Error()) {
			t.Errorf("gate %t: put: %v", gate, err)
		}
		_, err = m.Propose(m.ctx, &pb.InternalRaftRequest{LeaseRevoke: &pb.LeaseRevokeRequest{ID: 7}})
		if (err == nil) != gate {
			t.Errorf("gate %t: revoke: %v", gate, err)
		}
	}
}

// If this fails, a renewal is answered from a state that is older than what was
// committed, though the operator asked for better.
func TestRenewalWaitsForApplier(t *testing.T) {
	t.Parallel()
	for _, fast := range []bool{true, false} {
		m := startMember(t, func(c *Config) { c.FeatureGates = map[Feature]bool{FeatureFastLeaseKeepAlive: fast} })
		m.grant(7)
		m.progress.applied.Store(uint64(m.node.Commit()) - 1)
		ttl, err := m.renewHere(m.ctx, 7)
		if fast && (err != nil || ttl != leaseTTL) {
			t.Errorf("fast: %d, %v", ttl, err)
		}
		if !fast && !errors.Is(err, api.ErrTimeoutApply) {
			t.Errorf("not fast: %d, %v", ttl, err)
		}
	}
}

// If this fails, a member calls the others from an address that they do not know.
func TestMemberLocalAddress(t *testing.T) {
	for list, want := range map[string]string{
		"http://127.0.0.1:1":                               "<nil>",
		"http://host.example:1,http://0.0.0.0:1":           "<nil>",
		"http://10.1.2.3:1,http://127.0.0.1:1":             "10.1.2.3",
		"http://127.0.0.1:1,http://[fe80::1]:1":            "fe80::1",
		"unix://localhost:1,http://192.0.2.7:1,http://x:1": "192.0.2.7",
	} {
		if got := localAddr(must[[]url.URL](t)(ParseURLs(list))).String(); got != want {
			t.Errorf("%s: %s, want %s", list, got, want)
		}
	}
	l := must[net.Listener](t)((&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0"))
	defer l.Close()
	conn := must[net.Conn](t)(dialFrom(net.ParseIP("127.0.0.2"))(t.Context(), "tcp", l.Addr().String()))
	defer conn.Close()
	if got := must[net.Conn](t)(l.Accept()).RemoteAddr().String(); !strings.HasPrefix(got, "127.0.0.2:") {
		t.Errorf("called from %s", got)
	}
}
