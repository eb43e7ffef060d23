package client

import (
	"context"
	"errors"
	"slices"
	"testing"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

func revisions(t *testing.T, w *Watcher, n int) (revs []int64) {
	t.Helper()
	for len(revs) < n {
		r, err := w.Next()
		if err != nil {
			t.Fatalf("after %v: %v", revs, err)
		}
		for _, e := range r.Events {
			revs = append(revs, e.Kv.ModRevision)
		}
	}
	return revs
}

// If this fails, a program misses or repeats changes when a member restarts.
func TestWatchResumesAfterTheLastEvent(t *testing.T) {
	froms := make(chan int64, 4)
	c := startFake(t, &fakeMember{watch: func(n int, s pb.Watch_WatchServer) error {
		r := accept(t, s, 10)
		froms <- r.StartRevision
		switch n {
		case 1: // live events, then a catch-up batch whose header is far ahead
			send(t, s, events(r.WatchId, 11, 11))
			send(t, s, events(r.WatchId, 900, 12, 13))
			return errLost
		case 2: // repeats what was seen, then half of a fragmented response
			send(t, s, events(r.WatchId, 14, 12, 13, 14))
			half := events(r.WatchId, 15, 15)
			half.Fragment = true
			send(t, s, half)
			return errLost
		default:
			first := events(r.WatchId, 15, 15)
			first.Fragment = true
			send(t, s, first)
			send(t, s, events(r.WatchId, 15, 16))
			<-s.Context().Done()
			return nil
		}
	}})
	w := c.Watch(testContext(t), "k")
	if got, want := revisions(t, w, 6), []int64{11, 12, 13, 14, 15, 16}; !slices.Equal(got, want) {
		t.Errorf("got revisions %v, want %v", got, want)
	}
	if got, want := []int64{<-froms, <-froms, <-froms}, []int64{0, 14, 15}; !slices.Equal(got, want) {
		t.Errorf("resumed from %v, want %v", got, want)
	}
}

// If this fails, a watcher of quiet keys asks for history that was compacted
// long ago when it reconnects, and dies of it.
func TestWatchResumesAfterProgress(t *testing.T) {
	second := make(chan int64, 1)
	c := startFake(t, &fakeMember{watch: func(n int, s pb.Watch_WatchServer) error {
		r := accept(t, s, 10)
		if n == 2 {
			second <- r.StartRevision
			<-s.Context().Done()
			return nil
		}
		send(t, s, &pb.WatchResponse{Header: &pb.ResponseHeader{Revision: 50}, WatchId: -1})
		return errLost
	}})
	w := c.Watch(testContext(t), "k")
	r, err := w.Next()
	if err != nil || !r.IsProgress() || r.Header.Revision != 50 {
		t.Fatalf("got %v, %v; want progress at 50", r, err)
	}
	if from := <-second; from != 51 {
		t.Errorf("resumed from %d, want 51", from)
	}
}

// If this fails, a program goes on without noticing that it lost history.
func TestWatchTellsOfCompaction(t *testing.T) {
	c := startFake(t, &fakeMember{watch: func(_ int, s pb.Watch_WatchServer) error {
		r := accept(t, s, 10)
		send(t, s, &pb.WatchResponse{Header: &pb.ResponseHeader{}, WatchId: r.WatchId, Canceled: true, CompactRevision: 7})
		<-s.Context().Done()
		return nil
	}})
	w := c.Watch(testContext(t), "k", Revision(3))
	r, err := w.Next()
	if !errors.Is(err, ErrCompacted) || r == nil || r.CompactRevision != 7 || !r.Canceled {
		t.Fatalf("got %v, %v; want compaction at 7", r, err)
	}
	if r, err := w.Next(); r != nil || !errors.Is(err, ErrCompacted) {
		t.Errorf("second time: got %v, %v", r, err)
	}
}

// If this fails, one refused watch is taken for another one on the same stream.
func TestWatchRefusalReachesItsWatcher(t *testing.T) {
	c := startFake(t, &fakeMember{watch: func(_ int, s pb.Watch_WatchServer) error {
		for {
			r, err := s.Recv()
			if err != nil {
				return nil //nolint:nilerr // the client has gone
			}
			create := r.GetCreateRequest()
			if create == nil {
				continue
			}
			if string(create.Key) == "bad" {
				send(t, s, &pb.WatchResponse{
					Header: &pb.ResponseHeader{Revision: 9}, WatchId: -1, Created: true, Canceled: true,
					CancelReason: "rpc error: code = PermissionDenied desc = etcdserver: permission denied",
				})
				continue
			}
			send(t, s, &pb.WatchResponse{Header: &pb.ResponseHeader{Revision: 9}, WatchId: create.WatchId, Created: true})
			send(t, s, events(create.WatchId, 10, 10))
		}
	}})
	ctx := testContext(t)
	first, bad, last := c.Watch(ctx, "a"), c.Watch(ctx, "bad"), c.Watch(ctx, "b")
	if _, err := bad.Next(); !errors.Is(err, ErrPermissionDenied) {
		t.Errorf("got %v, want permission denied", err)
	}
	for _, w := range []*Watcher{first, last} {
		if got := revisions(t, w, 1); got[0] != 10 {
			t.Errorf("got %v, want 10", got)
		}
	}
}

// If this fails, a program that takes no responses lets the client grow
// without end, or loses events.
func TestWatchSlowProgramFallsBehindAndCatchesUp(t *testing.T) {
	const total = 3 * queueMax
	canceled := make(chan struct{}, 10)
	c := startFake(t, &fakeMember{watch: func(_ int, s pb.Watch_WatchServer) error {
		for {
			r, err := s.Recv()
			if err != nil {
				return nil //nolint:nilerr // the client has gone
			}
			if r.GetCancelRequest() != nil {
				canceled <- struct{}{}
			}
			create := r.GetCreateRequest()
			if create == nil {
				continue
			}
			send(t, s, &pb.WatchResponse{Header: &pb.ResponseHeader{Revision: total}, WatchId: create.WatchId, Created: true})
			for rev := create.StartRevision; rev <= total; rev++ {
				send(t, s, events(create.WatchId, rev, rev))
			}
		}
	}})
	w := c.Watch(testContext(t), "k", Revision(1))
	<-canceled // the queue was full
	for i, rev := range revisions(t, w, total) {
		if rev != int64(i+1) {
			t.Fatalf("event %d has revision %d", i, rev)
		}
	}
}

// If this fails, goroutines and server-side watches outlive their context.
func TestWatchEndsWithItsContext(t *testing.T) {
	canceled := make(chan int64, 1)
	c := startFake(t, &fakeMember{watch: func(_ int, s pb.Watch_WatchServer) error {
		for {
			r, err := s.Recv()
			if err != nil {
				return nil //nolint:nilerr // the client has gone
			}
			if create := r.GetCreateRequest(); create != nil {
				send(t, s, &pb.WatchResponse{Header: &pb.ResponseHeader{Revision: 1}, WatchId: create.WatchId, Created: true})
			} else if cancel := r.GetCancelRequest(); cancel != nil {
				canceled <- cancel.WatchId
			}
		}
	}})
	keep := c.Watch(testContext(t), "keep", CreatedNotify())
	ctx, cancel := context.WithCancel(testContext(t))
	w := c.Watch(ctx, "k", CreatedNotify())
	for _, w := range []*Watcher{keep, w} {
		if r, err := w.Next(); err != nil || !r.Created {
			t.Fatalf("got %v, %v; want created", r, err)
		}
	}
	cancel()
	if _, err := w.Next(); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
	<-canceled
}
