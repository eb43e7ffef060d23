package server

import (
	"context"
	"sync/atomic"
	"time"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server/state"
)

// quotaLook is how long a look at the size of the database is good for.
const quotaLook = 50 * time.Millisecond

// quota bounds the database. It is a local check at propose time: what a
// command does may never depend on the size of one member's file.
type quota struct {
	max    int64        // bytes, 0 is none
	size   func() int64 // of what counts, with what is not flushed
	looked atomic.Int64 // Unix nanoseconds
	seen   atomic.Int64 // bytes
	spent  atomic.Int64 // bytes admitted since
	alarm  atomic.Bool  // a NOSPACE alarm of this member is on its way
}

// fits reports whether cost more bytes may be proposed.
func (q *quota) fits(cost int64, now time.Time) bool {
	if q.max == 0 {
		return true
	}
	if last := q.looked.Load(); now.UnixNano()-last > int64(quotaLook) && q.looked.CompareAndSwap(last, now.UnixNano()) {
		q.look()
	}
	if q.seen.Load()+q.spent.Load()+cost >= q.max {
		// There may be room since the last look: a defragmentation is over.
		q.look()
		if q.seen.Load()+cost >= q.max {
			return false
		}
	}
	q.spent.Add(cost)
	return true
}

func (q *quota) look() {
	q.spent.Store(0)
	q.seen.Store(q.size())
}

// CheckQuota implements api.Member. The first request that does not fit raises
// the alarm, which then holds on every member until it is disarmed.
func (s *Server) CheckQuota(costBytes int) error {
	if s.quota.fits(int64(costBytes), time.Now()) {
		return nil
	}
	s.raiseNoSpace()
	return state.ErrNoSpace
}

func (s *Server) raiseNoSpace() {
	if s.machine.HasAlarm(pb.AlarmType_NOSPACE) || !s.quota.alarm.CompareAndSwap(false, true) {
		return
	}
	s.healer.wasFull.Store(true)
	s.background.Go(func() {
		defer s.quota.alarm.Store(false)
		if err := s.proposeSpaceAlarm(s.ctx, pb.AlarmRequest_ACTIVATE); err != nil {
			s.log.Warn("alarm was not raised", "alarm", "NOSPACE", "error", err.Error())
		}
	})
}

// proposeSpaceAlarm raises or takes back the alarm of this member.
func (s *Server) proposeSpaceAlarm(ctx context.Context, action pb.AlarmRequest_AlarmAction) error {
	alarm := &pb.AlarmRequest{Action: action, MemberID: uint64(s.self), Alarm: pb.AlarmType_NOSPACE}
	return s.proposeInternal(ctx, &pb.InternalRaftRequest{Alarm: alarm})
}
