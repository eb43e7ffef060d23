package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"

	"github.com/kvorum/kvorum/internal/version"
	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/raft/peer"
	"github.com/kvorum/kvorum/server/api"
	"github.com/kvorum/kvorum/server/api/token"
	"github.com/kvorum/kvorum/server/metrics"
	"github.com/kvorum/kvorum/server/secure"
	"github.com/kvorum/kvorum/server/state"
	"github.com/kvorum/kvorum/server/trace"
	"github.com/kvorum/kvorum/server/v2http"
)

// ErrRemoved: this member was removed from its cluster. Its data directory must
// not be used again.
var ErrRemoved = errors.New("the member has been permanently removed from the cluster")

// Server is one running member. Make it with New, run it once with Run.
type Server struct {
	cfg     Config
	log     *slog.Logger
	self    state.MemberID
	cluster uint64
	snapDir string
	walDir  string

	disk      *member
	store     *mvcc.Store
	machine   *state.Machine
	node      *raft.Node
	transport *peer.Transport
	metrics   *metrics.Set
	audit     *auditor      // nil: off
	tracer    *trace.Tracer // nil: off
	tokens    token.Tokens

	ids      *idSource
	waiters  *waiters
	progress progress
	leases   *leaseKeeper

	ledAfterPauses atomic.Uint64 // Node.Pauses() when a quorum last said that this member leads

	fastKeepAlive bool   // renewals do not wait for the applier
	revokeLagMax  uint64 // as applyLagMax, of revokes

	quota  quota
	healer *healer
	damage *damageSeen

	clientTLS       *secure.Files // nil: no URL needs it
	peerTLS         *secure.Files // nil: no URL needs it
	peerClient      *http.Client
	peerDial        peerDial // nil: as the system chooses
	peerListeners   []listener
	clientListeners []listener
	probeListeners  []listener
	httpListeners   []listener // none: HTTP is served on clientListeners
	grpc            *grpc.Server
	gate            startGate
	health          *health.Server
	services        *api.Services
	links           *linkStats
	v2              *v2http.Handler // nil: off
	v2gate          v2Gate
	started         time.Time

	downgraded    chan struct{} // a downgrade was begun or ended
	snapshots     chan takenSnapshot
	snapshotIndex uint64 // owner: applier

	ctx      context.Context // of Run
	cancel   context.CancelCauseFunc
	stopping chan struct{} // closed when Run begins to stop
	// Tasks that Run waits for and that end by themselves.
	background sync.WaitGroup

	learner         atomic.Bool
	confIndex       atomic.Uint64 // index of the newest membership change applied
	leaderSince     atomic.Int64  // Unix nanoseconds
	leaderChanges   atomic.Uint64
	proposalsFailed atomic.Uint64
	endPublish      atomic.Pointer[context.CancelFunc] // of the proposal that publishes this member, while there is one
	readIndexFailed atomic.Uint64
	slowApplies     atomic.Uint64
	slowReadIndexes atomic.Uint64
	ownDefrags      atomic.Int64 // automatic defragmentations under way
	traffic         api.Traffic
	unsent          *api.Unsent
	admission       *admission
}

// New opens the data of a member, or makes it, and its sockets. Nothing is
// served until Run.
func New(ctx context.Context, cfg Config, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	tokens, err := token.New(cfg.tokens())
	if err != nil {
		return nil, err
	}
	s := &Server{
		tokens: tokens, fastKeepAlive: cfg.enabled(FeatureFastLeaseKeepAlive),
		cfg: cfg, log: log, snapDir: cfg.paths().snap, walDir: cfg.paths().wal,
		health: health.NewServer(), waiters: newWaiters(), leases: newLeaseKeeper(), metrics: metrics.New(),
		v2gate: v2Gate{known: map[state.MemberID]bool{}},
		links:  &linkStats{trips: map[uint64]*tripStats{}}, started: time.Now(),
		snapshots: make(chan takenSnapshot, 1), downgraded: make(chan struct{}, 1), stopping: make(chan struct{}),
		unsent: api.NewUnsent(cfg.unsentBytesMax()), damage: newDamageSeen(),
		admission: newAdmission(cfg.requestTimeout(), api.NewErrors().Status(api.ErrTooManyRequests)),
	}
	s.revokeLagMax = cfg.applyLagMax
	if cfg.enabled(FeaturePriorityRequest) {
		s.revokeLagMax *= 2
	}
	if err := s.openTLS(); err != nil {
		return nil, err
	}
	s.peerDial = s.dialPeers()
	s.peerClient = peer.NewClient(peer.Config{TLS: s.dialTLS(), Dial: s.peerDial})
	if err := s.openListeners(ctx); err != nil {
		s.closeListeners()
		return nil, err
	}
	if err := s.open(ctx); err != nil {
		s.accuse(ctx, err)
		s.closeListeners()
		return nil, err
	}
	return s, nil
}

// open finds or makes the data and builds the parts on it.
func (s *Server) open(ctx context.Context) error {
	disk, err := s.cfg.boot(ctx, s.log, s.peerClient, s.storeOptions())
	if err != nil {
		return err
	}
	s.disk, s.self, s.cluster, s.store, s.machine = disk, disk.self, disk.cluster, disk.store, disk.machine
	tellRestored(s.log, s.store)
	s.warnMemoryLock()
	s.ids = newIDSource(uint64(s.self), time.Now())
	s.progress.applied.Store(s.store.Applied().Index)
	s.snapshotIndex = uint64(disk.start.Snapshot.Index)
	if err := s.link(); err != nil {
		disk.close()
		return err
	}
	if err := s.defragmentAtStart(ctx); err != nil {
		disk.close()
		return err
	}
	s.quota.max, s.quota.size = s.cfg.quotaBytes(), s.quotaSize
	s.healer = s.newHealer()
	s.registerMetrics()
	if err := errors.Join(s.openAudit(), s.openTracer(ctx)); err != nil {
		disk.close()
		return err
	}
	s.grpc = s.newGRPC()
	s.makeV2()
	return nil
}

// link makes the transport and the raft node, which need each other.
func (s *Server) link() (err error) {
	s.links.Observer = s.metrics.Peers
	s.transport, err = peer.New(peer.Config{
		Self: uint64(s.self), Cluster: s.cluster, LocalURLsNow: s.localPeerURLs,
		Version: version.API, Receiver: receiver{s}, Observer: s.links, Logger: s.log, SnapDir: s.snapDir,
		ReadTimeout: s.cfg.RaftReadTimeout, WriteTimeout: s.cfg.RaftWriteTimeout, TLS: s.dialTLS(), Dial: s.peerDial,
	})
	if err != nil {
		return err
	}
	s.disk.log.Observe(time.Now, s.metrics.LogStep)
	s.node, err = raft.New(raft.Config{
		ID: raft.MemberID(s.self), ElectionTicks: s.cfg.electionTicks(), HeartbeatTicks: 1,
		TickEvery: time.Duration(s.cfg.HeartbeatMillis) * time.Millisecond, InitialTicks: s.initialTicks(), PreVote: s.cfg.PreVote,
		Log: raft.NewDiskLog(s.disk.log, s.snapDir, s.cfg.UnsafeNoFsync), Start: s.disk.start,
		Transport: countedTransport{s.transport, s.links}, Snapshots: s, Logger: s.log.With("logger", "raft"), Rand: rand.Reader, CatchUpEntries: s.cfg.catchUpEntries(),
	})
	if err != nil {
		return err
	}
	for _, m := range s.disk.remotes {
		if err := s.transport.AddRemote(uint64(m.ID), m.PeerURLs); err != nil {
			return err
		}
	}
	for _, m := range s.machine.Members() {
		if m.ID == s.self {
			s.learner.Store(m.IsLearner)
		} else if err := s.transport.Add(uint64(m.ID), m.PeerURLs); err != nil {
			return err
		}
	}
	return nil
}

// initialTicks lets a restarted member hold its first election sooner: all but
// two ticks of the timeout count as passed, since nobody was heard meanwhile.
func (s *Server) initialTicks() int {
	if !s.cfg.ElectionTickAdvance {
		return 0
	}
	return max(0, s.cfg.electionTicks()-2)
}

func (s *Server) storeOptions() mvcc.Options {
	return mvcc.Options{
		FlushEvery: s.cfg.BatchInterval, FlushRecords: s.cfg.BatchLimit,
		CompactionBatch: s.cfg.CompactionBatch, CompactionPause: s.cfg.CompactionSleep, CompactHashes: s.cfg.enabled(FeatureCompactHashCheck),
		Damaged: func(d *mvcc.Damage) { s.damage.add(d) },
		NoSync:  s.cfg.UnsafeNoFsync, Observe: s.metrics.StoreStep, LockMemory: s.cfg.MemoryLock,
	}
}

func (s *Server) localPeerURLs() []string {
	if s.machine != nil {
		if m, ok := s.machine.Member(s.self); ok {
			return m.PeerURLs
		}
	}
	return urlStrings(s.cfg.AdvertisePeerURLs)
}

// Run serves until ctx ends or something fails that cannot be mended. Ending
// ctx is a clean stop: leadership is handed over first and everything applied
// is on disk when Run returns.
func (s *Server) Run(ctx context.Context) error {
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	defer s.cancel(nil)
	defer s.closeTracer() // last: it may wait for the collector
	group, gctx := errgroup.WithContext(s.ctx)
	s.start(gctx, group)
	stopAudit := s.startAudit()
	group.Go(func() error {
		select {
		case <-ctx.Done():
			s.handOver()
		case <-gctx.Done():
		}
		s.stop()
		return nil
	})
	err := group.Wait()
	s.background.Wait()
	stopAudit()
	if cause := context.Cause(s.ctx); errors.Is(cause, ErrRemoved) {
		err = cause
	}
	return errors.Join(err, s.store.Close(), s.disk.log.Close())
}

// start starts every long-lived goroutine of the member; docs/map.md lists
// them. If the data is to be checked first, all but the peer listeners wait for
// that.
func (s *Server) start(ctx context.Context, group *errgroup.Group) {
	a := &applier{Server: s, bootApplied: s.store.Applied().Index, told: versionsOf(s.machine)}
	keep, _ := parseRetention(s.cfg.AutoCompactionMode, s.cfg.AutoCompaction) // Validate has checked it
	compact := &compactor{keep: keep, store: s.store, leading: s.leading, log: s.log, propose: s.proposeInternal, every: revisionModePeriod}
	runs := []func(context.Context) error{
		s.node.Run, s.store.Run, s.transport.Run, a.run, s.followLeader, s.runLeases, s.runCheckpoints, s.runExpiry, s.runAdmission,
		s.runSnapshots, s.runPurge, s.runVersions, s.runDowngrade, s.runCorruptCheck, s.runCompactHashCheck,
		compact.run, s.newDefragmenter().run, s.publish, s.runDamage, s.runScrub,
	}
	if s.cfg.HealQuota {
		runs = append(runs, s.healer.run)
	}
	startAll := func() {
		s.gate.open.Store(true)
		for _, run := range runs {
			group.Go(func() error { return run(ctx) })
		}
	}
	group.Go(func() error { return s.servePeers(ctx) })
	if !s.cfg.enabled(FeatureInitialCorruptCheck) {
		startAll()
		return
	}
	group.Go(func() error {
		err := s.checkAtStart(ctx)
		if ctx.Err() != nil {
			return nil // told to stop meanwhile
		}
		if err == nil {
			startAll()
		}
		return err
	})
}

// stop ends everything that waits, then the goroutines.
func (s *Server) stop() {
	close(s.stopping)
	s.closeListeners()
	s.grpc.Stop()
	s.cancel(nil)
}

// handOver gives leadership away, so that clients need not wait for an
// election.
func (s *Server) handOver() {
	if !s.leading() {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.electionTimeout())
	defer cancel()
	if err := s.node.TransferAway(ctx); err != nil {
		s.log.Warn("leadership was not handed over", "error", err.Error())
		return
	}
	if s.leading() {
		return // nobody else can lead
	}
	s.log.Info("leadership handed over", "to", fmt.Sprintf("%x", uint64(s.node.Leader())))
}

func (s *Server) stopRemoved() {
	s.log.Error("this member was removed from the cluster; data-dir used by this member must be removed",
		"member", fmt.Sprintf("%x", uint64(s.self)), "data-dir", s.cfg.DataDir)
	s.cancel(ErrRemoved)
}

// followLeader reacts to elections: the lease keeper of a member that no longer
// leads forgets its deadlines.
func (s *Server) followLeader(ctx context.Context) error {
	for seen := raft.MemberID(0); ; {
		changes := s.node.Changes()
		if leader := s.node.Leader(); leader != seen {
			seen = leader
			if leader != 0 {
				s.leaderSince.Store(time.Now().UnixNano())
				s.leaderChanges.Add(1)
			}
			if leader != raft.MemberID(s.self) {
				s.leases.demote()
			}
		}
		select {
		case <-changes:
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Server) leading() bool { return s.node.Leader() == raft.MemberID(s.self) }

// proposeInternal proposes for the member itself.
func (s *Server) proposeInternal(ctx context.Context, r *pb.InternalRaftRequest) error {
	_, err := s.Propose(ctx, r)
	return err
}

// FillHeader implements api.Member.
func (s *Server) FillHeader(h *pb.ResponseHeader) {
	h.ClusterId, h.MemberId, h.RaftTerm = s.cluster, uint64(s.self), uint64(s.node.Term())
}

// Role implements api.Member.
func (s *Server) Role() (learner, led bool) { return s.learner.Load(), s.node.Leader() != 0 }

// RaftStatus implements api.Member.
func (s *Server) RaftStatus() api.RaftStatus {
	status := s.node.Status()
	return api.RaftStatus{
		Self: uint64(s.self), Leader: uint64(status.Leader), Term: uint64(status.Term),
		Committed: uint64(status.Commit), Applied: s.progress.applied.Load(),
		Learner: s.learner.Load(), Quota: s.cfg.quotaBytes(),
		APIVersion: version.API, StorageFormat: s.machine.StorageVersion(),
	}
}

// Stopping implements api.Member.
func (s *Server) Stopping() <-chan struct{} { return s.stopping }

// OnLeaderLost implements api.Member: it looks once an election timeout.
func (s *Server) OnLeaderLost(fn func()) (stop func()) {
	const looksMax = 3
	ctx, cancel := context.WithCancel(s.ctx)
	s.background.Go(func() {
		looks := 0
		every(ctx, s.cfg.electionTimeout(), func(time.Time) {
			looks++
			if s.node.Leader() != 0 {
				looks = 0
			}
			if looks == looksMax {
				cancel()
				fn()
			}
		})
	})
	return cancel
}

// receiver is what the transport tells the member. The messages pass through
// to the node.
type receiver struct{ s *Server }

func (r receiver) Receive(ctx context.Context, m *raft.Message) error {
	if raft.Appends(m) > 0 {
		r.s.links.receivedAppends.Add(1)
	}
	return r.s.node.Step(ctx, m)
}

func (r receiver) ReceiveSnapshot(ctx context.Context, m *raft.Message, _ string) error {
	return r.s.node.Step(ctx, m)
}

func (r receiver) Unreachable(id uint64) { r.s.node.ReportUnreachable(raft.MemberID(id)) }

func (r receiver) SnapshotSent(id uint64, ok bool) { r.s.node.ReportSnapshot(raft.MemberID(id), ok) }

func (r receiver) Removed(id uint64) bool { return r.s.machine.IsRemoved(state.MemberID(id)) }

func (r receiver) SelfRemoved() { r.s.stopRemoved() }
