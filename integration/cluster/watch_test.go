package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/internal/process"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// rawWatch opens a watch stream of its own, below the client, which always
// reads.
func (e *env) rawWatch(m *process.Member) pb.Watch_WatchClient {
	e.t.Helper()
	conn, err := grpc.NewClient(m.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(e.t, err)
	e.t.Cleanup(func() { _ = conn.Close() })
	stream, err := pb.NewWatchClient(conn).Watch(e.ctx)
	check(e.t, err)
	return stream
}

func create(key, end string, from int64) *pb.WatchRequest {
	r := &pb.WatchCreateRequest{Key: []byte(key), StartRevision: from}
	if end != "" {
		r.RangeEnd = []byte(end)
	}
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}
}

// If this fails, one client that hangs fills the server's memory or stops the
// writes of all others.
func TestWatcherThatNeverReads(t *testing.T) {
	t.Parallel()
	e := start(t, process.Options{Size: 1})
	m := e.Members[0]
	hung := rounds(50, 1000)
	for range hung {
		check(t, e.rawWatch(m).Send(create("w/", "w0", 0)))
	}
	e.hasWatchers(m, hung)
	value := strings.Repeat("x", 8<<10)
	before := e.memory(m)
	const puts = 2000
	watched := e.client.Watch(e.ctx, "w/", client.Prefix(), client.CreatedNotify())
	_, err := watched.Next()
	check(t, err)
	e.putMany("w/", puts, 16, value)
	// Everything that was written, for each that hangs, would be 16 MB each.
	grown := e.memory(m) - before
	t.Logf("memory grew by %d MB while %d MB were written and %d watchers did not read", grown>>20, puts*len(value)>>20, hung)
	if grown > int64(100+3*hung)<<20 {
		t.Errorf("memory grew by %d MB", grown>>20)
	}
	// Another watcher is not held up.
	for seen := 0; seen < puts; {
		r, err := watched.Next()
		if err != nil {
			t.Fatal(err)
		}
		seen += len(r.Events)
	}
}

// memory is the resident memory of a member, in bytes.
func (e *env) memory(m *process.Member) int64 {
	e.t.Helper()
	return int64(e.metric(m, "process_resident_memory_bytes"))
}

// hasWatchers waits until the member has so many watchers.
func (e *env) hasWatchers(m *process.Member, n int) {
	e.t.Helper()
	until(e.t, fmt.Sprintf("%d watchers", n), waitMax, func() error {
		if got := int(e.metric(m, "etcd_debugging_mvcc_watcher_total")); got < n {
			return fmt.Errorf("%d of them", got)
		}
		return nil
	})
}

// putMany puts n keys below a prefix by so many clients at once, and gives how
// long each put took, in order of time taken.
func (e *env) putMany(prefix string, n, clients int, value string) []time.Duration {
	e.t.Helper()
	var next atomic.Int64
	var mu sync.Mutex
	var group sync.WaitGroup
	var all []time.Duration
	for range clients {
		group.Go(func() {
			var own []time.Duration
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				ctx, cancel := context.WithTimeout(e.ctx, waitMax)
				began := time.Now()
				_, err := e.client.Put(ctx, fmt.Sprintf("%s%d", prefix, i%1000), value)
				own = append(own, time.Since(began))
				cancel()
				if err != nil {
					e.t.Errorf("put: %v", err)
					return
				}
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, own...)
		})
	}
	group.Wait()
	if e.t.Failed() {
		e.t.FailNow()
	}
	slices.Sort(all)
	return all
}

// If this fails, a controller that was away for an hour slows everybody down
// while it catches up, or misses a change.
func TestWatcherFarBehind(t *testing.T) {
	t.Parallel()
	e := start(t, process.Options{Size: 1})
	m := e.Members[0]
	total := rounds(10000, 200000)
	e.putMany("far/", total, 64, "x")
	sample := rounds(600, 5000)
	var alone, beside []time.Duration
	for range 3 {
		alone = append(alone, e.putMany("other/", sample, 8, "x")...)
		stop := e.followFrom(m, total)
		beside = append(beside, e.putMany("other/", sample, 8, "x")...)
		stop()
	}
	slices.Sort(alone)
	slices.Sort(beside)
	for _, share := range []float64{0.5, 0.99} {
		a, b := alone[int(share*float64(len(alone)))], beside[int(share*float64(len(beside)))]
		t.Logf("puts, p%.0f: %s alone, %s beside a watcher that catches up (%.2f times)", 100*share, a, b, float64(b)/float64(a))
		// The watcher takes processor time from the puts; a lock would cost far
		// more than that.
		if max := 8 * a; b > max+20*time.Millisecond {
			t.Errorf("p%.0f of puts went from %s to %s while a watcher caught up", 100*share, a, b)
		}
	}
}

// followFrom lets a watcher read all of far/ again and again until the returned
// function is called; it must see every change once, in order.
func (e *env) followFrom(m *process.Member, total int) (stop func()) {
	ctx, cancel := context.WithCancel(e.ctx)
	var group sync.WaitGroup
	c := e.newClient(m.Endpoint())
	group.Go(func() {
		for first := true; first || ctx.Err() == nil; first = false {
			if err := readHistory(e.ctx, c, total); err != nil {
				e.t.Errorf("watch of the past: %v", err)
				return
			}
		}
	})
	return func() {
		cancel()
		group.Wait()
	}
}

func readHistory(ctx context.Context, c *client.Client, total int) error {
	ctx, cancel := context.WithTimeout(ctx, waitMax)
	defer cancel()
	w := c.Watch(ctx, "far/", client.Prefix(), client.Revision(1))
	last, seen := int64(0), 0
	for seen < total {
		r, err := w.Next()
		if err != nil {
			return err
		}
		for _, event := range r.Events {
			if event.Kv.ModRevision <= last {
				return fmt.Errorf("revision %d came after %d", event.Kv.ModRevision, last)
			}
			last = event.Kv.ModRevision
			seen++
		}
	}
	if seen != total {
		return fmt.Errorf("%d changes came of %d", seen, total)
	}
	return nil
}

// If this fails, a cluster with as many controllers as real ones have cannot be
// served.
func TestTenThousandWatchers(t *testing.T) {
	t.Parallel()
	e := start(t, process.Options{Size: 1})
	m := e.Members[0]
	const all, streams = 10000, 10
	var seen atomic.Int64
	for s := range streams {
		stream := e.rawWatch(m)
		go func() {
			for {
				r, err := stream.Recv()
				if err != nil {
					return
				}
				seen.Add(int64(len(r.Events)))
			}
		}()
		for i := range all / streams {
			check(t, stream.Send(create(fmt.Sprintf("ten/%d", (s*all/streams+i)%100), "", 0)))
		}
	}
	e.hasWatchers(m, all)
	took := e.putMany("other/", 1000, 4, "x")
	t.Logf("puts that nobody watches beside %d watchers: median %s", all, took[len(took)/2])
	began := time.Now()
	for i := range 100 {
		e.mustPut(fmt.Sprintf("ten/%d", i), "x")
	}
	until(t, "every watcher hears of its key", waitMax, func() error {
		if n := seen.Load(); n < all {
			return fmt.Errorf("%d of %d events came", n, all)
		}
		return nil
	})
	if n := seen.Load(); n != all {
		t.Errorf("%d events came, not %d", n, all)
	}
	t.Logf("%d watchers were told within %s", all, time.Since(began).Round(time.Millisecond))
}
