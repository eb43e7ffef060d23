package server

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/kvorum/kvorum/server/state"
)

// Automatic defragmentation. Members take turns by the clock, in the order of
// their ids, and a member begins only in the first half of its turn: two do it
// at once only if one takes longer than half a turn or clocks differ by as much,
// which costs speed and nothing else.
const (
	defragLooksPerTurn = 10
	defragSpareBytes   = 64 << 20 // that must stay free on the disk beside the copy
)

// defragmenter defragments the database of this member when it pays.
type defragmenter struct {
	percent  int64 // of the file that must be free; 0 is off
	minBytes int64 // that must be free
	turn     time.Duration
	self     state.MemberID

	members    func() []state.MemberID
	sizes      func() (allocated, inUse int64)
	diskFree   func() (int64, error)
	defragment func(context.Context) error
	log        *slog.Logger

	tried int64 // the last turn in which it was tried
}

// run looks until ctx ends. With the threshold off it returns at once.
func (d *defragmenter) run(ctx context.Context) error {
	if d.percent == 0 {
		return nil
	}
	every(ctx, d.turn/defragLooksPerTurn, func(now time.Time) { d.look(ctx, now) })
	return nil
}

// look defragments if it pays and it is this member's turn. Afterwards nearly
// nothing is free: it does not pay again before as much was freed anew.
func (d *defragmenter) look(ctx context.Context, now time.Time) {
	turn, mine := d.turnAt(now)
	if !mine || turn == d.tried {
		return
	}
	allocated, inUse := d.sizes()
	if !d.pays(allocated, inUse) {
		return
	}
	d.tried = turn
	if err := d.room(inUse); err != nil {
		d.log.Warn("not defragmented", "error", err.Error())
		return
	}
	began := time.Now()
	if err := d.defragment(ctx); err != nil {
		if ctx.Err() == nil {
			d.log.Warn("not defragmented", "error", err.Error())
		}
		return
	}
	after, _ := d.sizes()
	d.log.Info("defragmented, since it paid", "took", time.Since(began), "bytes-before", allocated, "bytes-after", after)
}

// pays reports whether enough of the file is free.
func (d *defragmenter) pays(allocated, inUse int64) bool {
	free := allocated - inUse
	return free >= d.minBytes && free >= allocated/100*d.percent
}

// turnAt numbers the turns, and tells whether the time is in the first half of
// one of this member.
func (d *defragmenter) turnAt(now time.Time) (turn int64, mine bool) {
	members := d.members()
	slices.Sort(members)
	place := slices.Index(members, d.self)
	if place < 0 {
		return 0, false
	}
	turn = now.UnixNano() / int64(d.turn)
	into := time.Duration(now.UnixNano() % int64(d.turn))
	return turn, turn%int64(len(members)) == int64(place) && into < d.turn/2
}

// room returns an error when the disk has no room for a copy.
func (d *defragmenter) room(inUse int64) error {
	free, err := d.diskFree()
	if err != nil {
		return fmt.Errorf("look at the disk: %w", err)
	}
	if need := inUse + defragSpareBytes; free < need {
		return fmt.Errorf("the copy needs %d bytes, and the disk has %d", need, free)
	}
	return nil
}

func (s *Server) newDefragmenter() *defragmenter {
	return &defragmenter{
		percent: int64(s.cfg.DefragFreePercent), minBytes: int64(s.cfg.DefragMinMegabytes) << 20, turn: s.cfg.DefragTurn,
		self: s.self, sizes: s.storeSizes, defragment: s.defragment, log: s.log,
		diskFree: func() (int64, error) { return diskFree(filepath.Clean(s.snapDir)) },
		members: func() (ids []state.MemberID) {
			for _, m := range s.machine.Members() {
				ids = append(ids, m.ID)
			}
			return ids
		},
	}
}

// defragment counts as one that was asked for does.
func (s *Server) defragment(ctx context.Context) error {
	began := time.Now()
	s.ownDefrags.Add(1)
	defer s.ownDefrags.Add(-1)
	err := s.store.Defragment(ctx)
	s.metrics.Defragment.Observe(time.Since(began).Seconds())
	return err
}

// diskFree is how many bytes this process may still write where dir is.
func diskFree(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil //nolint:gosec // a disk has fewer bytes than 2^63
}
