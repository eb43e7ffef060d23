package bench

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// issue makes operation n, which was due at the given time since the start. It returns what to record.
type issue func(ctx context.Context, n int64, due time.Duration) (outcome, error)

// outcome describes one answered operation.
type outcome struct {
	part  part
	items int
	bytes int
}

// pace deals out operations: at once (closed loop) or on a timetable (open loop).
type pace struct {
	start    time.Time
	interval float64 // nanoseconds between two operations; 0 = closed loop
	total    int64   // 0 = no limit
	duration time.Duration
	next     atomic.Int64
}

func newPace(o *Options, start time.Time) *pace {
	p := &pace{start: start, total: o.Total, duration: o.Duration}
	if o.Rate > 0 {
		p.interval = float64(time.Second) / o.Rate
	}
	return p
}

// take waits until the next operation is due. It returns false when there is none.
func (p *pace) take(ctx context.Context) (n int64, due time.Duration, ok bool) {
	n = p.next.Add(1) - 1
	if p.total > 0 && n >= p.total {
		return 0, 0, false
	}
	if p.interval == 0 {
		due = time.Since(p.start)
	} else {
		due = time.Duration(float64(n) * p.interval)
	}
	if p.duration > 0 && due >= p.duration {
		return 0, 0, false
	}
	if wait := due - time.Since(p.start); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return 0, 0, false
		}
	}
	return n, due, ctx.Err() == nil
}

// errorPause keeps a closed loop from spinning on a server that refuses at once.
const errorPause = 10 * time.Millisecond

// work makes operations until the pace has none left.
func work(ctx context.Context, p *pace, s *shard, do issue) {
	for {
		n, due, ok := p.take(ctx)
		if !ok {
			return
		}
		out, err := do(ctx, n, due)
		if err == nil {
			s.done(out.part, time.Since(p.start)-due, out.items, out.bytes)
			continue
		}
		if ctx.Err() != nil {
			return
		}
		s.failed(err)
		if p.interval == 0 {
			time.Sleep(errorPause)
		}
	}
}

// shardCount is enough that workers seldom meet.
func shardCount(workers int) int { return min(workers, 4*runtime.GOMAXPROCS(0)) }

// slice is how often the collector makes a point: about a hundred in a run of known length.
func (o *Options) slice() time.Duration {
	if o.Duration == 0 {
		return 100 * time.Millisecond
	}
	return min(max(o.Duration/100, 100*time.Millisecond), 10*time.Second)
}

// measure runs the workers and collects until they are done.
func measure(ctx context.Context, o *Options, r *recorder, p *pace, workers []issue, parts []string,
	progress func(Point, time.Duration)) *Report {
	var group sync.WaitGroup
	for i, do := range workers {
		group.Go(func() { work(ctx, p, r.shard(i), do) })
	}
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	return collectUntil(o, r, p, parts, done, progress)
}

// collectUntil makes points until done is closed, then the report.
func collectUntil(o *Options, r *recorder, p *pace, parts []string, done <-chan struct{},
	progress func(Point, time.Duration)) *Report {
	t := newTotals(len(parts))
	ticker := time.NewTicker(o.slice())
	defer ticker.Stop()
	last := time.Duration(0)
	for running := true; running; {
		select {
		case <-ticker.C:
		case <-done:
			running = false
		}
		now := time.Since(p.start)
		point := t.collect(r, now, now-last)
		last = now
		if progress != nil {
			progress(point, now)
		}
	}
	return newReport(o, t, parts, p.start, last)
}

var errNothing = errors.New("not one operation succeeded")

// verdict fails a run in which nothing worked.
func (r *Report) verdict() error {
	if r.Operations > 0 || len(r.Errors) == 0 {
		return nil
	}
	texts := make([]string, 0, len(r.Errors))
	for text := range r.Errors {
		texts = append(texts, text)
	}
	slices.Sort(texts)
	return errors.Join(errNothing, errors.New(texts[0]))
}
