package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/kvorum/kvorum/server/state"
)

// If this fails, all members of a cluster defragment at once, or one does so again and again.
func TestMembersDefragmentInTurn(t *testing.T) {
	ids := []state.MemberID{30, 10, 20}
	began := map[state.MemberID][]time.Time{}
	now := time.Unix(6000, 0)
	var all []*defragmenter
	for _, id := range ids {
		allocated, inUse := int64(1000), int64(200)
		all = append(all, &defragmenter{
			percent: 50, minBytes: 500, turn: time.Minute, self: id, log: slog.New(slog.NewTextHandler(io.Discard, nil)),
			members:  func() []state.MemberID { return append([]state.MemberID(nil), ids...) },
			sizes:    func() (int64, int64) { return allocated, inUse },
			diskFree: func() (int64, error) { return 1 << 40, nil },
			defragment: func(context.Context) error {
				began[id] = append(began[id], now)
				allocated = inUse
				return nil
			},
		})
	}
	for ; now.Before(time.Unix(6000+600, 0)); now = now.Add(6 * time.Second) {
		for _, d := range all {
			d.look(t.Context(), now)
		}
	}
	for i, id := range []state.MemberID{10, 20, 30} {
		if want := time.Unix(6000, 0).Add(time.Duration((i+3-100%3)%3) * time.Minute); len(began[id]) != 1 || !began[id][0].Equal(want) {
			t.Errorf("member %d began at %v, want once, at %v", id, began[id], want)
		}
	}
}

// If this fails, a database is copied for a few pages, or fills the disk with its copy.
func TestDefragmentationMustPay(t *testing.T) {
	d := &defragmenter{
		percent: 50, minBytes: 100, turn: time.Minute, self: 1, log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		members: func() []state.MemberID { return []state.MemberID{1} },
	}
	for _, c := range []struct {
		allocated, inUse int64
		pays             bool
	}{{1000, 501, false}, {1000, 500, true}, {150, 60, false}, {0, 0, false}} {
		if got := d.pays(c.allocated, c.inUse); got != c.pays {
			t.Errorf("%d bytes with %d in use: %t", c.allocated, c.inUse, got)
		}
	}
	tries := 0
	space, failure := int64(defragSpareBytes), errors.New("no")
	d.sizes = func() (int64, int64) { return 1000, 1 }
	d.diskFree = func() (int64, error) { return space, nil }
	d.defragment = func(context.Context) error { tries++; return failure }
	now := time.Unix(6000, 0)
	if d.look(t.Context(), now); tries != 0 {
		t.Error("it copied onto a full disk")
	}
	space *= 2
	if d.look(t.Context(), now.Add(time.Second)); tries != 0 {
		t.Error("it tried twice in one turn")
	}
	if d.look(t.Context(), now.Add(31*time.Second)); tries != 0 {
		t.Error("it began in the second half of the turn")
	}
	d.look(t.Context(), now.Add(time.Minute))
	if d.look(t.Context(), now.Add(61*time.Second)); tries != 1 {
		t.Errorf("it tried %d times in the next turn, want once though it failed", tries)
	}
}

// If this fails, the file of a member stays large after most of it was deleted.
func TestDefragmentsByItself(t *testing.T) {
	m := startMember(t, func(c *Config) { c.DefragTurn, c.DefragMinMegabytes = time.Second, 1 })
	if err := m.fill(60, 100<<10); err != nil {
		t.Fatal(err)
	}
	m.waitFor("a large file", func() bool { allocated, _ := m.storeSizes(); return allocated > 4<<20 })
	m.deleteAndCompact()
	m.waitFor("a small file", func() bool { allocated, _ := m.storeSizes(); return allocated < 1<<20 })
}
