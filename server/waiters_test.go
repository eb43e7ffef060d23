package server

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/kvorum/kvorum/server/api"
	"github.com/kvorum/kvorum/server/state"
	"github.com/kvorum/kvorum/server/trace"
)

// If this fails, a client waits for ever, or gets the answer of another.
func TestWaiterGetsItsOwnResultOnce(t *testing.T) {
	w := newWaiters()
	var clients sync.WaitGroup
	for id := uint64(1); id <= 1000; id++ {
		e := w.add(id, second(0), second(10), trace.Span{})
		clients.Go(func() {
			if r := <-e.done; r.RequestID != id {
				t.Errorf("waiter %d got the result of %d", id, r.RequestID)
			}
			w.put(e)
		})
	}
	if n := w.len(); n != 1000 {
		t.Errorf("%d waiters in flight, want 1000", n)
	}
	for id := uint64(1); id <= 1000; id++ {
		w.finish(id, state.Result{RequestID: id})
		w.finish(id, state.Result{RequestID: id}) // told twice: the second goes nowhere
	}
	clients.Wait()
	if n := w.len(); n != 0 {
		t.Errorf("%d waiters left", n)
	}
}

// If this fails, a proposal that was lost hangs its client, or one that came
// in time is reported as timed out.
func TestExpiry(t *testing.T) {
	w := newWaiters()
	late, early := w.add(1, second(0), second(7), trace.Span{}), w.add(2, second(0), second(9), trace.Span{})
	w.expire(second(8), func(since time.Time) error {
		if since != second(0) {
			t.Errorf("since %v", since)
		}
		return api.ErrTimeout
	})
	if r := <-late.done; !errors.Is(r.Err, api.ErrTimeout) {
		t.Errorf("late waiter: %v", r.Err)
	}
	select {
	case r := <-early.done:
		t.Errorf("early waiter ended with %v", r.Err)
	default:
	}
	if !w.remove(2) || w.remove(2) {
		t.Error("a waiter can be removed once")
	}
}

// If this fails, a linearizable read returns before what it must see is there,
// or never.
func TestReadersWaitForTheirIndex(t *testing.T) {
	var p progress
	p.advance(5)
	stopping := make(chan struct{})
	ctx := context.Background()
	if err := p.wait(ctx, 5, stopping, api.ErrStopped); err != nil {
		t.Fatal(err)
	}
	seven, nine := p.register(7), p.register(9)
	p.advance(7)
	select {
	case <-seven:
	default:
		t.Error("the reader of 7 was not woken at 7")
	}
	select {
	case <-nine:
		t.Error("the reader of 9 was woken at 7")
	default:
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := p.wait(cancelled, 100, stopping, api.ErrStopped); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled wait: %v", err)
	}
	close(stopping)
	if err := p.wait(ctx, 100, stopping, api.ErrStopped); !errors.Is(err, api.ErrStopped) {
		t.Errorf("wait of a stopping member: %v", err)
	}
}

// If this fails, the database outgrows its quota, or a full one refuses work
// that fits.
func TestQuota(t *testing.T) {
	size, looks := int64(100), 0
	q := quota{max: 1000, size: func() int64 { looks++; return size }}
	if !q.fits(500, second(0)) || !q.fits(300, second(0)) || looks != 1 {
		t.Errorf("500 and 300 fit beside 100 in 1000, with one look at the size and not %d", looks)
	}
	size = 900 // they have arrived
	if q.fits(100, second(0)) {
		t.Error("another 100 does not fit")
	}
	size = 200 // defragmented a moment later
	if !q.fits(500, second(0)) {
		t.Error("the size must be looked at again before a request is refused")
	}
	if none := (quota{}); !none.fits(1<<60, second(0)) {
		t.Error("no quota refuses nothing")
	}
}

// If this fails, two requests get one ID and one of them the other's answer.
func TestIDsDoNotRepeat(t *testing.T) {
	s := newIDSource(0xffff_1234, time.UnixMilli(1<<40-1))
	seen := map[uint64]bool{}
	for range 100_000 {
		id := s.next()
		if seen[id] || id == 0 || id>>48 != 0x1234 {
			t.Fatalf("ID %x", id)
		}
		seen[id] = true
	}
	later := newIDSource(0xffff_1234, time.UnixMilli(1<<40-1).Add(time.Second))
	if id := later.next(); seen[id] {
		t.Errorf("ID %x drawn again after a restart a second later", id)
	}
	if lease := newIDSource(0xffff, time.Now()).nextLease(); lease <= 0 {
		t.Errorf("lease ID %d", lease)
	}
}
