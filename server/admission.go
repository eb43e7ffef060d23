package server

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/tap"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

const (
	// admitAlways is how many requests may be under way whatever they cost: a
	// member that is slow but not crowded refuses nobody.
	admitAlways = 64
	// admissionTick is how often a crowded member measures what it gets done.
	admissionTick = 50 * time.Millisecond
	// costUnknown is what a request is taken to cost before the member has been
	// crowded, and long after. It is low: a guess must not refuse what would be
	// served.
	costUnknown = 100 * time.Microsecond
	// costMemory is how long a measurement counts as much as the next.
	costMemory = 250 * time.Millisecond
	// costMax keeps a member whose disk hangs from believing that it never ends.
	costMax = 100 * time.Millisecond
)

// admission refuses requests that could not be answered in time. Without it a
// member that is asked for more than it can do spends its time on requests whose
// callers have given up, and serves nobody.
//
//	wait expected = requests under way × time per request, as measured
//
// A request is refused when that is more than half of the time that its caller
// has left. So how long the queue gets follows from the callers' deadlines, and
// a load whose callers have patience is never refused. While fewer than
// admitAlways are under way all this costs one atomic read.
//
// Its methods may be called from any goroutine but for measure, which belongs to
// runAdmission.
type admission struct {
	timeout time.Duration // of requests whose callers name none
	refusal error

	underWay atomic.Int64
	ended    atomic.Int64
	cost     atomic.Int64 // nanoseconds per request
	delay    atomic.Int64 // nanoseconds until what is ready to run runs

	crowded bool      // owner: runAdmission; at the last measurement
	known   bool      // owner: runAdmission; cost was measured, and not long ago
	at      time.Time // owner: runAdmission; of the last measurement
	before  int64     // owner: runAdmission; ended at that time
}

func newAdmission(timeout time.Duration, refusal error) *admission {
	a := &admission{timeout: timeout, refusal: refusal}
	a.cost.Store(int64(costUnknown))
	return a
}

// expected is how long a request that comes now would wait.
func (a *admission) expected(underWay int64) time.Duration {
	return time.Duration(underWay*a.cost.Load() + 2*a.delay.Load())
}

// refuses tells whether a request cannot be answered in time.
func (a *admission) refuses(ctx context.Context) bool {
	n := a.underWay.Load()
	if n < admitAlways {
		return false
	}
	left := a.timeout
	if deadline, ok := ctx.Deadline(); ok {
		left = min(left, time.Until(deadline))
	}
	return a.expected(n) > left/2
}

// bounded tells which methods are refused when they come too late: what reads
// and writes keys, and no more, as an operator must get through and leases live.
func bounded(method string) bool {
	return strings.HasPrefix(method, "/etcdserverpb.KV/") && method != pb.KV_Compact_FullMethodName && method != pb.KV_RangeStream_FullMethodName
}

// tap refuses when a request's header has come: it costs the least then. gRPC
// calls it under a lock of the connection.
func (a *admission) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	if a.underWay.Load() >= admitAlways && bounded(info.FullMethodName) && a.refuses(ctx) {
		return ctx, a.refusal
	}
	return ctx, nil
}

// unary counts the requests under way. Those that have waited for a processor
// since their header came are refused here if it took too long.
func (a *admission) unary(ctx context.Context, r any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if !bounded(info.FullMethod) {
		return next(ctx, r)
	}
	if a.underWay.Load() >= admitAlways && a.refuses(ctx) {
		return nil, a.refusal
	}
	a.underWay.Add(1)
	defer a.end()
	return next(ctx, r)
}

func (a *admission) end() {
	a.underWay.Add(-1)
	a.ended.Add(1)
}

// measure takes the time per request from what ended since something ended last,
// if the member was crowded all the while: else its callers set the pace. Answers
// come in bursts, as the applier finishes whole batches, so a time in which nothing
// ended counts together with the burst after it.
func (a *admission) measure(now time.Time) {
	ended, underWay := a.ended.Load(), a.underWay.Load()
	n, took := ended-a.before, now.Sub(a.at)
	was := a.crowded
	a.crowded = underWay >= admitAlways
	cost := time.Duration(a.cost.Load())
	switch {
	case !a.crowded || !was:
		a.at, a.before = now, ended
		if !a.crowded {
			cost += (costUnknown - cost) / 16
			a.known = cost > 2*costUnknown
		}
	case n > 0:
		a.at, a.before = now, ended
		weight := float64(took) / float64(took+costMemory)
		if !a.known { // the queue grows by all that is let in on a guess
			a.known, weight = true, 1
		}
		cost += time.Duration(weight * float64(took/time.Duration(n)-cost))
	default: // in this time everything should have ended, if it is more than was thought
		cost = max(cost, took/time.Duration(underWay))
	}
	a.cost.Store(int64(min(cost, costMax)))
	if !a.crowded {
		a.delay.Store(0)
		return
	}
	a.probe()
}

// probe measures how long a goroutine waits for a processor. The scheduler runs
// what was made ready last at once, so it takes two to measure with the first.
func (a *admission) probe() {
	began := time.Now()
	go func() {
		old := a.delay.Load()
		a.delay.Store(old + (int64(time.Since(began))-old)/4)
	}()
	go func() {}()
}

// runAdmission measures until ctx ends.
func (s *Server) runAdmission(ctx context.Context) error {
	every(ctx, admissionTick, s.admission.measure)
	return nil
}
