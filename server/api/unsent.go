package api

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/mem"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

const (
	// largeAnswerBytes is from where on an answer is counted until it is sent.
	largeAnswerBytes = 256 << 10
	// rangesAtOnce bounds the ranges that are read at one moment: no more are
	// faster, and each holds what it has read.
	rangesAtOnce = 4
	collectEvery = 2 * time.Second
)

// Unsent counts the bytes of large answers that wait for their clients to read
// them. When there are too many, no range is read until some are gone: a client
// that asks and never reads must not cost all of the memory. Single keys are
// always read. Its methods may be called from any goroutine; a nil one counts
// nothing.
type Unsent struct {
	max   int64
	held  atomic.Int64
	slots chan struct{}
	// collected is when a collection was asked for, in Unix nanoseconds.
	collected atomic.Int64
	read      sync.Map // *pb.RangeResponse -> func(): counted, not encoded yet
}

// NewUnsent lets large answers hold bytesMax bytes.
func NewUnsent(bytesMax int64) *Unsent {
	return &Unsent{max: bytesMax, slots: make(chan struct{}, rangesAtOnce)}
}

// Hold counts an answer until release is called, any number of times.
func (u *Unsent) Hold(bytes int) (release func()) {
	if u == nil || bytes < largeAnswerBytes {
		return func() {}
	}
	return u.hold(bytes)
}

// hold is Hold for a part of a large answer.
func (u *Unsent) hold(bytes int) (release func()) {
	u.held.Add(int64(bytes))
	return sync.OnceFunc(func() { u.held.Add(-int64(bytes)) })
}

// Held is how many bytes wait.
func (u *Unsent) Held() int64 { return u.held.Load() }

// full tells whether too much waits. What gRPC held for connections that are gone
// is known only after a collection, so before a refusal there is one, if there was
// none of late.
func (u *Unsent) full() bool {
	if u == nil || u.held.Load() <= u.max {
		return false
	}
	now, last := time.Now().UnixNano(), u.collected.Load()
	if now-last > int64(collectEvery) && u.collected.CompareAndSwap(last, now) {
		runtime.GC()
	}
	return u.held.Load() > u.max
}

// begin admits one range, unless its caller is gone by the time of its turn; call
// end after it.
func (u *Unsent) begin(ctx context.Context) error {
	if u == nil {
		return nil
	}
	select {
	case u.slots <- struct{}{}:
	default:
		select {
		case u.slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if u.full() { // by now those before it are counted
		u.end()
		return ErrTooManyRequests
	}
	return nil
}

func (u *Unsent) end() {
	if u != nil {
		<-u.slots
	}
}

// count counts what was read, if it is large, until it is encoded or the request
// is over.
func (u *Unsent) count(ctx context.Context, r *pb.RangeResponse) {
	size := 0
	for _, kv := range r.Kvs {
		size += len(kv.Key) + len(kv.Value)
	}
	if u == nil || size < largeAnswerBytes {
		return
	}
	u.read.Store(r, u.Hold(size))
	context.AfterFunc(ctx, func() { u.encoded(r) })
}

// encoded ends what count began.
func (u *Unsent) encoded(answer any) {
	if release, ok := u.read.LoadAndDelete(answer); ok {
		release.(func())()
	}
}

// mayBeLarge tells what no more than one value can be.
func mayBeLarge(r *pb.RangeRequest) bool { return len(r.RangeEnd) > 0 && !r.CountOnly }

// txnMayBeLarge looks for ranges in all branches.
func txnMayBeLarge(r *pb.TxnRequest) bool {
	for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range ops {
			switch o := op.Request.(type) {
			case *pb.RequestOp_RequestRange:
				if mayBeLarge(o.RequestRange) {
					return true
				}
			case *pb.RequestOp_RequestTxn:
				if txnMayBeLarge(o.RequestTxn) {
					return true
				}
			}
		}
	}
	return false
}

// marshal encodes into a buffer that is counted until gRPC lets go of it. It is
// not kept for reuse: large ones are rare.
func (u *Unsent) marshal(size int, write func([]byte) (int, error)) (mem.BufferSlice, error) {
	b := make([]byte, size)
	if _, err := write(b); err != nil {
		return nil, err
	}
	release := u.Hold(size)
	runtime.AddCleanup(&b, func(release func()) { release() }, release) // should gRPC forget to
	return mem.BufferSlice{mem.NewBuffer(&b, releasing(release))}, nil
}

// releasing is the pool that a counted buffer goes back to.
type releasing func()

// Get implements mem.BufferPool; nobody gets from here.
func (releasing) Get(length int) *[]byte { b := make([]byte, length); return &b }

// Put implements mem.BufferPool.
func (r releasing) Put(*[]byte) { r() }
