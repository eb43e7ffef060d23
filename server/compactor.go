package server

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// revisionModePeriod is how often revision mode compacts.
const revisionModePeriod = 5 * time.Minute

// retention is what auto-compaction keeps: a time or a number of revisions.
// The zero value is off.
type retention struct {
	period    time.Duration
	revisions int64
}

// parseRetention reads --auto-compaction-retention. A bare number is hours in
// periodic mode and revisions in revision mode.
func parseRetention(mode, text string) (retention, error) {
	bad := func(err error) (retention, error) {
		return retention{}, fmt.Errorf("--auto-compaction-retention: %q is not a retention for mode %s: %w", text, mode, err)
	}
	text = strings.TrimSpace(text)
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		switch {
		case n < 0:
			return bad(fmt.Errorf("it must not be negative"))
		case mode == CompactRevision:
			return retention{revisions: n}, nil
		}
		return retention{period: time.Duration(n) * time.Hour}, nil
	}
	if mode == CompactRevision {
		return bad(fmt.Errorf("give a number of revisions"))
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return bad(err)
	}
	if d < 0 {
		return bad(fmt.Errorf("it must not be negative"))
	}
	return retention{period: d}, nil
}

// compactor is auto-compaction. It runs on every member and acts on the leader
// only, so that it goes on when the leader changes.
type compactor struct {
	keep    retention
	store   *mvcc.Store
	leading func() bool
	propose func(context.Context, *pb.InternalRaftRequest) error
	log     *slog.Logger
	every   time.Duration // of revision mode
}

// run compacts until ctx ends. With retention off it returns at once.
func (c *compactor) run(ctx context.Context) error {
	switch {
	case c.keep.period > 0:
		c.runPeriodic(ctx)
	case c.keep.revisions > 0:
		c.runRevision(ctx)
	}
	return nil
}

// runPeriodic records the revision ten times an interval, and once an interval
// compacts to the revision that was current one period ago. An interval is the
// period, at most an hour.
func (c *compactor) runPeriodic(ctx context.Context) {
	interval := min(c.keep.period, time.Hour)
	samplesKept := int(c.keep.period/(interval/10)) + 1
	var samples []mvcc.Revision
	next := time.Now().Add(c.keep.period)
	every(ctx, interval/10, func(now time.Time) {
		samples = append(samples, c.store.Revision())
		if len(samples) > samplesKept {
			samples = samples[len(samples)-samplesKept:]
		}
		if now.Before(next) || !c.leading() {
			return
		}
		c.compact(ctx, samples[0])
		next = now.Add(interval)
	})
}

func (c *compactor) runRevision(ctx context.Context) {
	every(ctx, c.every, func(time.Time) {
		if c.leading() {
			c.compact(ctx, c.store.Revision()-mvcc.Revision(c.keep.revisions))
		}
	})
}

func (c *compactor) compact(ctx context.Context, to mvcc.Revision) {
	if to <= max(0, c.store.CompactRevision()) {
		return
	}
	err := c.propose(ctx, &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: int64(to)}})
	if err != nil {
		c.log.Warn("auto compaction failed", "revision", int64(to), "error", err.Error())
		return
	}
	c.log.Info("auto compaction", "revision", int64(to))
}

// every calls fn once a period until ctx ends.
func every(ctx context.Context, period time.Duration, fn func(now time.Time)) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			fn(now)
		}
	}
}
