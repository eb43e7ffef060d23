package compat

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/integration/compat/process"
)

// next receives one answer that carries events, within the suite's time limit.
func next(t *testing.T, events clientv3.WatchChan) clientv3.WatchResponse {
	t.Helper()
	timer := time.NewTimer(waitMax)
	defer timer.Stop()
	select {
	case answer, ok := <-events:
		if !ok {
			t.Fatal("the watch ended")
		}
		return answer
	case <-timer.C:
		t.Fatalf("nothing came within %s", waitMax)
	}
	return clientv3.WatchResponse{}
}

// collect receives until n events have come.
func collect(t *testing.T, events clientv3.WatchChan, n int) []*clientv3.Event {
	t.Helper()
	var all []*clientv3.Event
	for len(all) < n {
		answer := next(t, events)
		if err := answer.Err(); err != nil {
			t.Fatalf("after %d of %d events: %v", len(all), n, err)
		}
		all = append(all, answer.Events...)
	}
	return all
}

// describe writes events as "PUT a=1" and "DELETE a".
func (e *env) describe(events []*clientv3.Event) string {
	var all []string
	for _, event := range events {
		text := fmt.Sprintf("%s %s", event.Type, string(event.Kv.Key)[len(e.prefix):])
		if event.Type == clientv3.EventTypePut {
			text += "=" + string(event.Kv.Value)
		}
		if event.PrevKv != nil {
			text += " was " + string(event.PrevKv.Value)
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

// history makes a put, an update, a delete, a txn of two and a lone put; it returns the first revision.
func (e *env) history() int64 {
	first := e.put("a", "1")
	e.put("a", "2")
	if _, err := e.Delete(e.ctx, e.key("a")); err != nil {
		e.t.Fatal(err)
	}
	if _, err := e.Txn(e.ctx).Then(clientv3.OpPut(e.key("b"), "3"), clientv3.OpPut(e.key("c"), "4")).Commit(); err != nil {
		e.t.Fatal(err)
	}
	e.put("d", "5")
	return first
}

// Controllers act on events: a missing, repeated or misordered one leaves the world in the wrong state.
func TestWatchOptions(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		const everything = "PUT a=1, PUT a=2, DELETE a, PUT b=3, PUT c=4, PUT d=5"
		tests := []struct {
			name    string
			options []clientv3.OpOption
			want    string
		}{
			{"all", nil, everything},
			{"previous values", []clientv3.OpOption{clientv3.WithPrevKV()},
				"PUT a=1, PUT a=2 was 1, DELETE a was 2, PUT b=3, PUT c=4, PUT d=5"},
			{"no puts", []clientv3.OpOption{clientv3.WithFilterPut()}, "DELETE a"},
			{"no deletes", []clientv3.OpOption{clientv3.WithFilterDelete()}, "PUT a=1, PUT a=2, PUT b=3, PUT c=4, PUT d=5"},
			{"fragments", []clientv3.OpOption{clientv3.WithFragment()}, everything},
		}
		live := make([]clientv3.WatchChan, len(tests))
		for i, test := range tests {
			options := append([]clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithCreatedNotify()}, test.options...)
			live[i] = e.Watch(e.ctx, e.prefix, options...)
			if created := next(t, live[i]); !created.Created {
				t.Fatalf("%s: first answer %v", test.name, created)
			}
		}
		first := e.history()
		for i, test := range tests {
			n := strings.Count(test.want, ",") + 1
			if got := e.describe(collect(t, live[i], n)); got != test.want {
				t.Errorf("live, %s:\n got  %s\n want %s", test.name, got, test.want)
			}
			options := append([]clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithRev(first)}, test.options...)
			past := e.Watch(e.ctx, e.prefix, options...)
			if got := e.describe(collect(t, past, n)); got != test.want {
				t.Errorf("from history, %s:\n got  %s\n want %s", test.name, got, test.want)
			}
		}
	})
}

// A watch on one key or a range must not leak neighbours.
func TestWatchRanges(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		first := e.history()
		for name, test := range map[string]struct {
			key     string
			options []clientv3.OpOption
			want    string
		}{
			"one key":  {"b", nil, "PUT b=3"},
			"range":    {"b", []clientv3.OpOption{clientv3.WithRange(e.key("d"))}, "PUT b=3, PUT c=4"},
			"from key": {"c", []clientv3.OpOption{clientv3.WithFromKey()}, "PUT c=4, PUT d=5"},
		} {
			options := append([]clientv3.OpOption{clientv3.WithRev(first)}, test.options...)
			events := collect(t, e.Watch(e.ctx, e.key(test.key), options...), strings.Count(test.want, ",")+1)
			if got := e.describe(events); got != test.want {
				t.Errorf("%s: %s, want %s", name, got, test.want)
			}
		}
	})
}

// A watcher that starts far behind must get every revision once, in order, and then live events.
func TestWatchCatchesUp(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		const behind, live = 2500, 20
		first := e.put("k", "0")
		for i := 1; i < behind; i += 100 {
			e.putMany(i, min(i+100, behind))
		}
		events := e.Watch(e.ctx, e.key("k"), clientv3.WithRev(first))
		seen := collect(t, events, behind)
		e.putMany(behind, behind+live)
		seen = append(seen, collect(t, events, live)...)
		for i, event := range seen {
			if string(event.Kv.Value) != fmt.Sprint(i) || (i > 0 && event.Kv.ModRevision <= seen[i-1].Kv.ModRevision) {
				t.Fatalf("event %d is %s at revision %d", i, event.Kv.Value, event.Kv.ModRevision)
			}
		}
	})
}

// putMany writes the numbers from..to-1 to k, in order.
func (e *env) putMany(from, to int) {
	e.t.Helper()
	for i := from; i < to; i++ {
		e.put("k", fmt.Sprint(i))
	}
}

// A watcher that asks for what is compacted must be told so, with the revision to go on from.
func TestWatchCompacted(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		e = e.on(0)
		r1 := e.put("k", "1")
		r2 := e.put("k", "2")
		if _, err := e.Compact(e.ctx, r2); err != nil {
			t.Fatal(err)
		}
		answer := next(t, e.Watch(e.ctx, e.key("k"), clientv3.WithRev(r1)))
		if !answer.Canceled || answer.CompactRevision != r2 || answer.Err() != rpctypes.ErrCompacted { //nolint:errorlint // clients compare values
			t.Errorf("canceled %t compact revision %d error %v, want %d and %v",
				answer.Canceled, answer.CompactRevision, answer.Err(), r2, rpctypes.ErrCompacted)
		}
		if got := collect(t, e.Watch(e.ctx, e.key("k"), clientv3.WithRev(r2)), 1); string(got[0].Kv.Value) != "2" {
			t.Errorf("from the compacted revision itself: %v", got[0])
		}
	})
}

// Caches trust a progress answer to mean that they have seen everything up to it.
func TestWatchProgress(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		events := e.Watch(e.ctx, e.key("k"), clientv3.WithCreatedNotify())
		next(t, events)
		e.put("k", "v")
		rev := e.put("elsewhere", "v")
		got, progress := 0, int64(0)
		for progress < rev {
			if err := e.RequestProgress(e.ctx); err != nil {
				t.Fatal(err)
			}
			answer := next(t, events)
			got += len(answer.Events)
			if answer.IsProgressNotify() {
				progress = answer.Header.Revision
			}
		}
		if got != 1 {
			t.Errorf("%d events before the progress answer at %d, want 1", got, progress)
		}
	})
}

// Answers above the client's message limit would break the stream: they must come in pieces when asked for.
// One revision can be that large when it changes large values and the watcher wants those before, too.
func TestWatchFragments(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		e = e.on(0)
		const puts = 2
		value := strings.Repeat("v", 700<<10)
		var rev int64
		for range 2 {
			answer, err := e.Txn(e.ctx).Then(clientv3.OpPut(e.prefix+"0", value), clientv3.OpPut(e.prefix+"1", value)).Commit()
			if err != nil {
				t.Fatal(err)
			}
			rev = answer.Header.Revision
		}
		stream, err := pb.NewWatchClient(e.ActiveConnection()).Watch(e.ctx)
		if err != nil {
			t.Fatal(err)
		}
		create := &pb.WatchCreateRequest{
			Key: []byte(e.prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(e.prefix)), StartRevision: rev, Fragment: true, PrevKv: true,
		}
		if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
			t.Fatal(err)
		}
		events, pieces, last := 0, 0, false
		for events < puts || !last {
			answer, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			events, last = events+len(answer.Events), !answer.Fragment
			if answer.Fragment {
				pieces++
			}
		}
		if events != puts || pieces == 0 {
			t.Errorf("%d events of %d, %d answers marked as a piece", events, puts, pieces)
		}
	})
}

// The wire of bad watches: clients see the reason in the answer, and the stream goes on for other watchers.
func TestWatchRefusals(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		stream, err := pb.NewWatchClient(e.ActiveConnection()).Watch(e.ctx)
		if err != nil {
			t.Fatal(err)
		}
		create := func(request *pb.WatchCreateRequest) *pb.WatchResponse {
			err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: request}})
			if err != nil {
				t.Fatal(err)
			}
			answer, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			return answer
		}
		good := create(&pb.WatchCreateRequest{Key: []byte(e.key("k")), WatchId: 7})
		if !good.Created || good.Canceled || good.WatchId != 7 {
			t.Errorf("a good watch: %v", good)
		}
		for reason, request := range map[string]*pb.WatchCreateRequest{
			"mvcc: watcher range is empty":                           {Key: []byte("b"), RangeEnd: []byte("a")},
			"mvcc: duplicate watch ID provided on the WatchStream":   {Key: []byte("b"), WatchId: 7},
			"etcdserver: mvcc: required revision has been compacted": {Key: []byte("b"), StartRevision: -1},
		} {
			if got := create(request); !got.Created || !got.Canceled || got.WatchId != -1 || got.CancelReason != reason {
				t.Errorf("%q: %v", reason, got)
			}
		}
		e.put("k", "v")
		if answer, err := stream.Recv(); err != nil || answer.WatchId != 7 || len(answer.Events) != 1 {
			t.Errorf("the good watch afterwards: %v, %v", answer, err)
		}
	})
}

// A watch must live through the restart of every server without gap or repeat.
func TestWatchResumesAfterRestart(t *testing.T) {
	for _, size := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d-node", size), func(t *testing.T) {
			c := startCluster(t, process.Options{Binary: targetBinary(t), Size: size})
			e := newEnv(t, c)
			events := e.Watch(e.ctx, e.key("k"), clientv3.WithCreatedNotify())
			next(t, events)
			n := 0
			var seen []*clientv3.Event
			for _, m := range c.Members {
				e.putMany(n, n+20)
				n += 20
				m.Kill()
				if err := m.Start(); err != nil {
					t.Fatal(err)
				}
				e.putUntilDone(fmt.Sprint(n))
				n++
				for len(seen) == 0 || string(seen[len(seen)-1].Kv.Value) != fmt.Sprint(n-1) {
					seen = append(seen, collect(t, events, 1)...)
				}
			}
			values := map[string]bool{}
			for i, event := range seen {
				values[string(event.Kv.Value)] = true
				if i > 0 && event.Kv.ModRevision <= seen[i-1].Kv.ModRevision {
					t.Errorf("revision %d came after %d", event.Kv.ModRevision, seen[i-1].Kv.ModRevision)
				}
			}
			if len(values) != n {
				t.Errorf("%d of %d values came", len(values), n)
			}
		})
	}
}

// putUntilDone writes k again until a server answers: the outcome of a put during a restart is unknown, and this one is
// the same however often it is done.
func (e *env) putUntilDone(value string) {
	e.t.Helper()
	for {
		ctx, cancel := context.WithTimeout(e.ctx, 2*time.Second)
		_, err := e.Put(ctx, e.key("k"), value)
		cancel()
		if err == nil {
			return
		}
		if e.ctx.Err() != nil {
			e.t.Fatalf("no put succeeded after the restart: %v", err)
		}
	}
}
