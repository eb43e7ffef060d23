package bench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// eventsWait is how long a load waits for events after its last put.
const eventsWait = 30 * time.Second

// watchers is the receiving side of a watch load: its streams, all watchers on them created.
type watchers struct {
	group   sync.WaitGroup
	mu      sync.Mutex
	run     *watchRun // guarded by mu; nil between runs
	err     error     // guarded by mu: the first stream that broke
	broken  chan struct{}
	perPut  []int64 // events that one put of key i causes
	created atomic.Int64
}

// watchRun is what a received event needs to know about the run it belongs to.
type watchRun struct {
	id       int64
	start    time.Time
	recorder *recorder
	due      atomic.Int64 // events that answered puts have promised
	seen     atomic.Int64
	moved    chan struct{} // capacity 1: seen has grown
}

// watch opens the streams and creates the watchers: watcher i watches key i modulo the key space.
func (l *Load) watch() error {
	o := &l.options
	w := &watchers{broken: make(chan struct{}), perPut: make([]int64, o.KeySpace)}
	l.events = w
	byStream := make([][]int64, o.Streams)
	for i := range o.Watchers {
		key := int64(i) % o.KeySpace
		w.perPut[key]++
		byStream[i%o.Streams] = append(byStream[i%o.Streams], key)
	}
	for i, watched := range byStream {
		if err := l.watchStream(i, watched); err != nil {
			return fmt.Errorf("watch stream %d: %w", i, err)
		}
	}
	return nil
}

// watchStream opens one stream and creates its watchers one by one: a server may hold an answer back while requests come.
func (l *Load) watchStream(i int, watched []int64) error {
	stream, err := l.pool.at(i).NewStream(l.ctx, &duplex, rpcWatch)
	if err != nil {
		return err
	}
	names := newKeys(&l.options, 0)
	answer := &watchReply{event: func([]byte) {}}
	for _, key := range watched {
		create := &pb.WatchCreateRequest{Key: names.at(nil, key)}
		request := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}
		if err := stream.SendMsg(request); err != nil {
			return err
		}
		for answer.created = false; !answer.created; {
			if err := stream.RecvMsg(answer); err != nil {
				return err
			}
		}
		if answer.canceled {
			return fmt.Errorf("the server refused the watcher: %s", answer.reason)
		}
		answer.created = false
	}
	l.events.group.Go(func() { l.events.receive(stream, i) })
	return nil
}

// receive records the events of one stream until the load is closed.
func (w *watchers) receive(stream grpc.ClientStream, i int) {
	now, events := time.Time{}, 0
	var run *watchRun
	answer := &watchReply{}
	answer.event = func(value []byte) {
		at, ok := stamped(value)
		if run == nil || !ok || at>>runShift != run.id {
			return
		}
		events++
		run.recorder.shard(i).done(0, now.Sub(run.start)-time.Duration(at&runMask), 1, len(value))
	}
	for {
		events = 0
		if err := w.next(stream, answer, &run, &now); err != nil {
			w.fail(err)
			return
		}
		if events > 0 {
			run.saw(events)
		}
	}
}

// next receives one answer; the run and the time are set before its events are looked at.
func (w *watchers) next(stream grpc.ClientStream, answer *watchReply, run **watchRun, now *time.Time) error {
	if err := stream.RecvMsg(&arrival{watchReply: answer, before: func() {
		w.mu.Lock()
		*run = w.run
		w.mu.Unlock()
		*now = time.Now()
	}}); err != nil {
		return err
	}
	if answer.canceled {
		return fmt.Errorf("the server canceled a watcher: %s", answer.reason)
	}
	return nil
}

// arrival is a watch answer that takes the time before it is read.
type arrival struct {
	*watchReply
	before func()
}

func (a *arrival) scan(data []byte) error {
	a.before()
	return a.watchReply.scan(data)
}

// A stamp holds the run's number above the time since the run's start, so that late events of an earlier run are not counted.
const (
	runShift = 44 // 2^44 ns are almost five hours
	runMask  = 1<<runShift - 1
)

// saw counts events and wakes the one who waits for the last of them.
func (r *watchRun) saw(events int) {
	r.seen.Add(int64(events))
	select {
	case r.moved <- struct{}{}:
	default:
	}
}

func (w *watchers) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
		close(w.broken)
	}
}

func (w *watchers) wait() { w.group.Wait() }

// begin makes run the one whose events count.
func (w *watchers) begin(run *watchRun) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.run = run
}

func (w *watchers) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// runWatch writes, and ends when every event of every answered put has come.
func (l *Load) runWatch(ctx context.Context, progress func(Point, time.Duration)) (*Report, error) {
	o, w := &l.options, l.events
	r := newRecorder(shardCount(max(o.Streams, o.Clients)), 1)
	run := &watchRun{id: w.created.Add(1), start: time.Now(), recorder: r, moved: make(chan struct{}, 1)}
	w.begin(run)
	defer w.begin(nil)
	p := newPace(o, run.start)
	done := make(chan struct{})
	var failed error
	var writers sync.WaitGroup
	for i := range o.Clients {
		c := newCaller(l, i)
		writers.Go(func() { c.writeStamped(ctx, p, r.shard(i), run, w.perPut) })
	}
	go func() {
		defer close(done)
		writers.Wait()
		failed = w.drain(ctx, run)
	}()
	report := collectUntil(o, r, p, []string{"event"}, done, progress)
	return report, failed
}

// writeStamped puts values that say when they were due.
func (c *caller) writeStamped(ctx context.Context, p *pace, s *shard, run *watchRun, perPut []int64) {
	value := make([]byte, max(c.o.ValSize, stampSize))
	copy(value, c.puts.Value)
	c.puts.Value = value
	for {
		n, due, ok := p.take(ctx)
		if !ok {
			return
		}
		stamp(value, run.id<<runShift|int64(due))
		if _, err := c.put(ctx, n, due); err != nil {
			if ctx.Err() == nil {
				s.failed(err)
			}
			continue
		}
		run.due.Add(perPut[keyNumber(c.key)])
	}
}

// drain waits for the events that are still on their way.
func (w *watchers) drain(ctx context.Context, run *watchRun) error {
	timer := time.NewTimer(eventsWait)
	defer timer.Stop()
	for run.seen.Load() < run.due.Load() {
		select {
		case <-run.moved:
		case <-ctx.Done():
			return ctx.Err()
		case <-w.broken:
			return w.failure()
		case <-timer.C:
			return fmt.Errorf("%d of %d events did not come within %s of the last put",
				run.due.Load()-run.seen.Load(), run.due.Load(), eventsWait)
		}
	}
	return nil
}
