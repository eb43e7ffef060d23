package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

// frozen is a request that was encoded once: the load must not cost more than
// what it loads. Answers are not looked at.
type frozen []byte

// Name implements encoding.CodecV2.
func (frozen) Name() string { return "proto" }

// Marshal implements encoding.CodecV2.
func (frozen) Marshal(v any) (mem.BufferSlice, error) {
	request, ok := v.(frozen)
	if !ok {
		return nil, fmt.Errorf("%T is not encoded", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(request)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (frozen) Unmarshal(mem.BufferSlice, any) error { return nil }

// openLoop sends requests on a timetable, whether or not those before are
// answered, as clients do that do not know of each other. Each has a deadline of
// its own, and counts as good when it is answered before that.
type openLoop struct {
	conns    []*grpc.ClientConn
	method   string
	requests []frozen // in turn
	deadline time.Duration
}

// openTally is what came of a load.
type openTally struct {
	sent, good, refused, late, failed int64
	took                              time.Duration
	example                           error // of failed
}

// goodput is the answers in time, per second.
func (c openTally) goodput() float64 { return float64(c.good) / c.took.Seconds() }

func (c openTally) String() string {
	s := fmt.Sprintf("%.0f/s sent, %.0f/s good, %.0f%% refused, %.0f%% late, %d failed", float64(c.sent)/c.took.Seconds(), c.goodput(),
		100*float64(c.refused)/float64(max(1, c.sent)), 100*float64(c.late)/float64(max(1, c.sent)), c.failed)
	if c.example != nil {
		s += ": " + c.example.Error()
	}
	return s
}

func dialMany(t *testing.T, n int, endpoints ...string) (conns []*grpc.ClientConn) {
	t.Helper()
	for i := range n {
		conn, err := grpc.NewClient(endpoints[i%len(endpoints)], grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodecV2(frozen(nil)), grpc.MaxCallRecvMsgSize(1<<30)))
		check(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		conns = append(conns, conn)
	}
	return conns
}

// count notes how one call ended.
func (c *openTally) count(err error, mu *sync.Mutex) {
	switch status.Code(err) {
	case codes.OK:
		atomic.AddInt64(&c.good, 1)
	case codes.DeadlineExceeded:
		atomic.AddInt64(&c.late, 1)
	default:
		if strings.Contains(err.Error(), "etcdserver: too many requests") {
			atomic.AddInt64(&c.refused, 1)
			return
		}
		if strings.Contains(err.Error(), "etcdserver: request timed out") { // the member has noticed before the client
			atomic.AddInt64(&c.late, 1)
			return
		}
		atomic.AddInt64(&c.failed, 1)
		mu.Lock()
		c.example = err
		mu.Unlock()
	}
}

func (o *openLoop) call(ctx context.Context, i int64) error {
	err := o.conns[i%int64(len(o.conns))].Invoke(ctx, o.method, o.requests[i%int64(len(o.requests))], frozen(nil))
	if errors.Is(err, context.DeadlineExceeded) {
		err = status.FromContextError(err).Err()
	}
	return err
}

// closed keeps so many calls in flight: what can be served.
func (o *openLoop) closed(ctx context.Context, inFlight int, lasts time.Duration) openTally {
	var c openTally
	var mu sync.Mutex
	var group sync.WaitGroup
	var next atomic.Int64
	began := time.Now()
	for range inFlight {
		group.Go(func() {
			for time.Since(began) < lasts {
				ctx, cancel := context.WithTimeout(ctx, o.deadline)
				c.count(o.call(ctx, next.Add(1)), &mu)
				cancel()
			}
		})
	}
	group.Wait()
	c.sent, c.took = next.Load(), time.Since(began)
	return c
}

// run sends rate requests a second.
func (o *openLoop) run(ctx context.Context, rate float64, lasts time.Duration) openTally {
	var c openTally
	var mu sync.Mutex
	var group sync.WaitGroup
	began := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for now := began; now.Sub(began) < lasts; now = <-tick.C {
		for due := int64(rate * now.Sub(began).Seconds()); c.sent < due; c.sent++ {
			i := c.sent
			deadline := began.Add(time.Duration(float64(i)/rate*float64(time.Second)) + o.deadline)
			if !now.Before(deadline) { // the load itself is late: as if its answer had been
				c.late++
				continue
			}
			group.Go(func() {
				ctx, cancel := context.WithDeadline(ctx, deadline)
				defer cancel()
				c.count(o.call(ctx, i), &mu)
			})
		}
	}
	c.took = time.Since(began)
	group.Wait()
	return c
}
