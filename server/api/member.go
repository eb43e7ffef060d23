package api

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/v3electionpb"
	"github.com/kvorum/kvorum/proto/v3lockpb"
	"github.com/kvorum/kvorum/server/state"
)

// Member is the running member behind the services; server.Server is one. All
// methods may be called from any goroutine.
type Member interface {
	// Propose replicates a command and waits until this member applied it. The
	// result's own error is returned as err.
	Propose(ctx context.Context, r *pb.InternalRaftRequest) (state.Result, error)
	// ReadBarrier waits until this member has applied everything that was
	// answered to anyone before the call.
	ReadBarrier(ctx context.Context) error
	// FillHeader sets cluster, member and term. The revision stays as it is.
	FillHeader(h *pb.ResponseHeader)
	// Role tells whether this member is a learner and whether it sees a leader.
	Role() (learner, led bool)
	// RaftStatus tells where raft is.
	RaftStatus() RaftStatus
	// CheckQuota fails with state.ErrNoSpace when cost more bytes do not fit.
	CheckQuota(costBytes int) error

	// RenewLease restarts the clock of a lease and gives its TTL in seconds; a
	// follower asks the leader. state.ErrLeaseNotFound when it is gone.
	RenewLease(ctx context.Context, id int64) (ttlSeconds int64, err error)
	// LeaseTimeToLive tells what a lease has left; a follower asks the leader.
	LeaseTimeToLive(ctx context.Context, id int64, keys bool) (*pb.LeaseTimeToLiveResponse, error)
	// NextLeaseID draws an ID for a client that left the choice to the server.
	NextLeaseID() int64

	// SortLeases puts leases in the order of their ends, as far as this member knows them.
	SortLeases(leases []state.Lease)

	// AddMember takes URLs that have been checked.
	AddMember(ctx context.Context, peerURLs []string, learner bool) (added state.Member, err error)
	RemoveMember(ctx context.Context, id uint64) error
	UpdateMember(ctx context.Context, id uint64, peerURLs []string) error
	PromoteMember(ctx context.Context, id uint64) error
	MoveLeader(ctx context.Context, to uint64) error
	// Defragment gives free pages of the database file back to the disk.
	Defragment(ctx context.Context) error

	// OnLeaderLost calls fn once when this member has been without a leader for
	// three election timeouts; stop ends the interest.
	OnLeaderLost(fn func()) (stop func())
	// Stopping is closed when the member begins to stop.
	Stopping() <-chan struct{}
}

// RaftStatus is a moment of this member's raft.
type RaftStatus struct {
	Self, Leader              uint64 // member IDs; Leader 0 is none
	Term, Committed, Applied  uint64
	Learner                   bool
	Quota                     int64 // bytes, 0 is none
	APIVersion, StorageFormat string
}

// Services is what all gRPC services share.
type Services struct {
	member  Member
	store   *mvcc.Store
	machine *state.Machine
	errors  *Errors
	limits  Limits
	ranged  Observer
	watched WatchObserver

	auth      *authoriser
	passwords *passwords
}

// Limits bound what one request may ask for.
type Limits struct {
	RequestBytesMax  int
	TxnOpsMax        int
	LeaseTTLMin      int64 // seconds; a shorter lease is made longer
	Unsent           *Unsent
	ProgressInterval time.Duration
	// V2PrefixWrites lets clients write the keys of the v2 API.
	V2PrefixWrites bool
}

// Observer is told, if set, how long the store took for one range.
type Observer func(took time.Duration, err error)

// ObserveRanges must be called before Register.
func (s *Services) ObserveRanges(o Observer) { s.ranged = o }

// WatchObserver is told, if set, how long it took to send one batch of a watch
// stream, and how many events were in it.
type WatchObserver func(kind mvcc.WatchBatchKind, events int, took time.Duration)

// ObserveWatches must be called before Register.
func (s *Services) ObserveWatches(o WatchObserver) { s.watched = o }

// rangeBounded is rangeStore for an answer that is kept until it is sent.
func (s *Services) rangeBounded(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	if !mayBeLarge(r) {
		return s.rangeStore(r)
	}
	if err := s.limits.Unsent.begin(ctx); err != nil {
		return nil, err
	}
	defer s.limits.Unsent.end()
	return s.rangeCounted(ctx, r)
}

// rangeCounted is rangeBounded for who has asked Unsent to begin.
func (s *Services) rangeCounted(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	response, err := s.rangeStore(r)
	if err == nil {
		s.limits.Unsent.count(ctx, response)
	}
	return response, err
}

// rangeStore reads the store.
func (s *Services) rangeStore(r *pb.RangeRequest) (*pb.RangeResponse, error) {
	if s.ranged == nil {
		return s.store.Range(r)
	}
	began := time.Now()
	response, err := s.store.Range(r)
	s.ranged(time.Since(began), err)
	return response, err
}

// New makes the services of one member.
func New(m Member, store *mvcc.Store, machine *state.Machine, l Limits, auth Auth) *Services {
	s := &Services{member: m, store: store, machine: machine, errors: NewErrors(), limits: l, passwords: newPasswords(auth.BcryptCost)}
	s.auth = &authoriser{
		Auth: auth, machine: machine, errors: s.errors, rules: rules(l.TxnOpsMax),
		caughtUp: m.ReadBarrier, applied: func() uint64 { return m.RaftStatus().Applied },
	}
	return s
}

// Register adds all services to a gRPC server.
func (s *Services) Register(g grpc.ServiceRegistrar) {
	g.RegisterService(kvService(), KV{Services: s})
	pb.RegisterWatchServer(g, Watch{Services: s})
	pb.RegisterLeaseServer(g, Lease{Services: s})
	pb.RegisterClusterServer(g, Cluster{Services: s})
	pb.RegisterMaintenanceServer(g, Maintenance{Services: s})
	pb.RegisterAuthServer(g, AuthService{Services: s})
	v3lockpb.RegisterLockServer(g, Lock{Services: s})
	v3electionpb.RegisterElectionServer(g, Election{Services: s})
}

// header makes a header with the revision that the answer is about.
func (s *Services) header(rev mvcc.Revision) *pb.ResponseHeader {
	h := &pb.ResponseHeader{Revision: int64(rev)}
	s.member.FillHeader(h)
	return h
}

// current makes a header with the current revision.
func (s *Services) current() *pb.ResponseHeader { return s.header(s.store.Revision()) }

// own fills the header that the store made, or makes one with the current
// revision when it made none or said none.
func (s *Services) own(h *pb.ResponseHeader) *pb.ResponseHeader {
	if h == nil || h.Revision == 0 {
		return s.current()
	}
	s.member.FillHeader(h)
	return h
}

// propose replicates r and gives its response as a T, or the status error.
func propose[T any](ctx context.Context, s *Services, r *pb.InternalRaftRequest) (T, error) {
	var none T
	result, err := s.member.Propose(ctx, r)
	if err != nil {
		return none, s.errors.Status(err)
	}
	response, ok := result.Response.(T)
	if !ok {
		return none, s.errors.Status(state.ErrUnknownCommand)
	}
	return response, nil
}
