package server

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

const (
	healEvery = time.Second
	// The space alarm is taken back when at most this share of the quota is in use, so that it does not come and go.
	healPercent = 90
)

// healer takes back the space alarm of this member once there is room again,
// after deletes and a compaction. Every member looks after its own alarm: only
// it knows its file. An alarm that this member did not raise, such as one that
// an operator has set on purpose, is left alone: see wasFull.
type healer struct {
	quota  int64 // bytes, 0 is none
	sizes  func() (allocated, inUse int64)
	mine   func() bool // whether the alarm of this member is on
	disarm func(context.Context) error
	log    *slog.Logger

	wasFull atomic.Bool // this member has been short of space since the alarm was last off
}

// run looks until ctx ends.
func (h *healer) run(ctx context.Context) error {
	if h.quota == 0 {
		return nil
	}
	every(ctx, healEvery, func(time.Time) { h.look(ctx) })
	return nil
}

// look takes the alarm back if it is time. The file only grows until it is
// defragmented, so its size tells after a restart, too, that it has been full.
func (h *healer) look(ctx context.Context) {
	if !h.mine() {
		return
	}
	enough := h.quota / 100 * healPercent
	allocated, inUse := h.sizes()
	if allocated > enough {
		h.wasFull.Store(true)
	}
	if inUse > enough || !h.wasFull.Load() {
		return
	}
	if err := h.disarm(ctx); err != nil {
		h.log.Warn("alarm was not taken back", "alarm", "NOSPACE", "error", err.Error())
		return
	}
	h.wasFull.Store(false)
	h.log.Info("alarm taken back: there is room again", "alarm", "NOSPACE", "in-use-bytes", inUse, "quota-bytes", h.quota)
}

func (s *Server) newHealer() *healer {
	return &healer{
		quota: s.cfg.quotaBytes(), sizes: s.storeSizes, mine: s.hasOwnSpaceAlarm, log: s.log,
		disarm: func(ctx context.Context) error { return s.proposeSpaceAlarm(ctx, pb.AlarmRequest_DEACTIVATE) },
	}
}

func (s *Server) hasOwnSpaceAlarm() bool {
	return s.machine.HasAlarm(pb.AlarmType_NOSPACE) &&
		slices.ContainsFunc(s.machine.Alarms(pb.AlarmType_NOSPACE), func(a *pb.AlarmMember) bool { return a.MemberID == uint64(s.self) })
}

// storeSizes are the size of the database and what of it is in use, both with
// what is not in the file yet.
func (s *Server) storeSizes() (allocated, inUse int64) {
	stats := s.store.Stats()
	unflushed := int64(stats.UnflushedBytes)
	return stats.SizeBytes + unflushed, stats.InUseBytes + unflushed
}

// quotaSize is what counts against the quota: the bytes in use, since free
// pages take new data, or the whole file as etcd has it.
func (s *Server) quotaSize() int64 {
	allocated, inUse := s.storeSizes()
	if s.cfg.HealQuota {
		return inUse
	}
	return allocated
}
