package bench

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// stalling answers at once, but for one operation that takes a second.
func stalling(ctx context.Context, n int64, _ time.Duration) (outcome, error) {
	if n == 100 {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
	return outcome{}, nil
}

func runFake(o Options, workers ...issue) *Report {
	return measure(context.Background(), &o, newRecorder(1, 1), newPace(&o, time.Now()), workers, []string{"op"}, nil)
}

// A server that stalls for a second must be charged for all operations that were due in that second, not for one: this
// is the mistake (coordinated omission) that makes most load tools lie.
func TestOpenLoopChargesTheStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runFake(Options{Kind: Put, Rate: 1000, Total: 2000}, stalling)
		// Due during the stall: 1000 operations, waiting 1000 ms, 999 ms, … 1 ms.
		if r.Operations != 2000 || r.Latency.Max < 999 || r.Latency.P75 < 490 || r.Latency.P75 > 510 || r.Latency.P50 > 2 {
			t.Errorf("latency %+v of %d operations", r.Latency, r.Operations)
		}
		if r.Seconds < 1.99 || r.Seconds > 2.01 {
			t.Errorf("the timetable took %.3f s, want 2", r.Seconds)
		}
	})
}

// With enough clients the others keep to the timetable while one waits.
func TestOpenLoopGoesOnBesideTheStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runFake(Options{Kind: Put, Rate: 1000, Total: 2000}, stalling, stalling)
		if r.Latency.Max < 999 || r.Latency.P99 > 1 {
			t.Errorf("latency %+v", r.Latency)
		}
	})
}

// A closed loop has no timetable: the stall is one slow operation, and the load ends when its time is over.
func TestClosedLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(ctx context.Context, n int64, due time.Duration) (outcome, error) {
			time.Sleep(time.Millisecond)
			return stalling(ctx, n, due)
		}
		r := runFake(Options{Kind: Put, Duration: 3 * time.Second}, slow)
		if r.Operations != 2000 || r.Latency.P99 > 1.1 || r.Latency.Max < 1000 {
			t.Errorf("%d operations in 3 s, latency %+v", r.Operations, r.Latency)
		}
		sum := int64(0)
		for _, p := range r.Timeline {
			sum += p.Operations
		}
		if sum != r.Operations {
			t.Errorf("the timeline has %d of %d operations", sum, r.Operations)
		}
	})
}

// Answers are scanned by hand: what the scan finds must be what the generated code finds.
func TestScansEqualGeneratedCode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 5).Draw(t, "n")
		values := rapid.SliceOfN(rapid.SliceOf(rapid.Byte()), n, n).Draw(t, "values")
		answer := &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: 7}, More: true, Count: 9}
		watch := &pb.WatchResponse{
			Header: &pb.ResponseHeader{Revision: 7}, WatchId: rapid.Int64().Draw(t, "id"),
			Created: rapid.Bool().Draw(t, "created"), Canceled: rapid.Bool().Draw(t, "canceled"),
			CancelReason: rapid.String().Draw(t, "reason"), Fragment: true,
		}
		for _, value := range values {
			kv := &mvccpb.KeyValue{Key: []byte("k"), Value: value, ModRevision: 3}
			answer.Kvs = append(answer.Kvs, kv)
			watch.Events = append(watch.Events, &mvccpb.Event{Kv: kv, PrevKv: &mvccpb.KeyValue{Value: []byte("old")}})
		}
		scanned := &reply{}
		if err := scanned.scan(encode(t, answer)); err != nil || scanned.items != n {
			t.Fatalf("%d items, want %d, %v", scanned.items, n, err)
		}
		var seen [][]byte
		got := &watchReply{event: func(v []byte) { seen = append(seen, bytes.Clone(v)) }}
		if err := got.scan(encode(t, watch)); err != nil {
			t.Fatal(err)
		}
		if got.created != watch.Created || got.canceled != watch.Canceled || got.reason != watch.CancelReason ||
			!slices.EqualFunc(seen, values, bytes.Equal) {
			t.Fatalf("scanned %+v with values %q, want %v", got, seen, watch)
		}
	})
}

func encode(t *rapid.T, m proto.Message) []byte {
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A server that sends garbage must give an error, not a crash.
func FuzzScan(f *testing.F) {
	f.Add([]byte{0x5a, 0x02, 0x12, 0x00})
	f.Add([]byte{0x12, 0xff})
	f.Add([]byte("\xdb0$")) // a group closed by another field's end
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = (&reply{}).scan(data)
		_ = (&keepAliveReply{}).scan(data)
		_ = (&watchReply{event: func([]byte) {}}).scan(data)
		if proto.Unmarshal(data, &pb.WatchResponse{}) == nil {
			if err := (&watchReply{event: func([]byte) {}}).scan(data); err != nil {
				t.Errorf("the protobuf library reads what the scan does not: %v", err)
			}
		}
	})
}

// Keys that collide or fall out of order would make a load smaller than it says.
func TestKeys(t *testing.T) {
	o := Defaults(Put)
	o.KeySize, o.KeySpace = 40, 1000
	k := newKeys(&o, 0)
	last := ""
	for i := range o.KeySpace {
		key := string(k.at(nil, i))
		if len(key) != 40 || key <= last || keyNumber([]byte(key)) != i {
			t.Fatalf("key %d is %q after %q", i, key, last)
		}
		last = key
	}
	a, b := newKeys(&o, 1), newKeys(&o, 1)
	if x, y := string(a.next(nil, 0)), string(b.next(nil, 0)); x != y {
		t.Errorf("the same seed gave %q and %q", x, y)
	}
	for prefix, want := range map[string]string{"a/": "a0", "\xff": "\x00", "a\xff": "b", "": "\x00"} {
		if got := string(prefixEnd(prefix)); got != want {
			t.Errorf("the end of %q is %q, want %q", prefix, got, want)
		}
	}
}

// The page must show every spike, in both colour schemes, and open without a network.
func TestPage(t *testing.T) {
	r := &Report{Load: "put", Endpoints: []string{"127.0.0.1:1"}}
	for i := range 2000 {
		p := Point{Seconds: float64(i) / 10, Operations: 5, Throughput: 50, P50: 1, P99: 2, Max: 3}
		if i == 1234 {
			p.Max = 777
		}
		r.Timeline = append(r.Timeline, p)
	}
	if kept := thin(r.Timeline, func(p Point) float64 { return p.Max }); len(kept) > pointsMax ||
		!slices.ContainsFunc(kept, func(p [2]float64) bool { return p[1] == 777 }) {
		t.Errorf("%d points kept, the spike among them: no", len(kept))
	}
	var out bytes.Buffer
	if err := r.writeHTML(&out); err != nil {
		t.Fatal(err)
	}
	page := out.String()
	for _, want := range []string{"prefers-color-scheme: dark", "color-scheme\" content=\"light dark", "Latency, ms", "Operations per second"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, outside := range []string{"http://", "https://", "<script", "<link", "url(", "@import"} {
		if strings.Contains(page, outside) {
			t.Errorf("the page needs something from outside: %s", outside)
		}
	}
	drawings := regexp.MustCompile(`(?s)<svg viewBox="0 0 900.*?</svg>`).FindAllString(page, -1)
	if len(drawings) != 2 {
		t.Fatalf("%d drawings, want 2", len(drawings))
	}
	for _, drawing := range drawings {
		for d := xml.NewDecoder(strings.NewReader(drawing)); ; {
			if _, err := d.Token(); err == io.EOF { //nolint:errorlint // the decoder returns it bare
				break
			} else if err != nil {
				t.Fatalf("a drawing is not well-formed: %v", err)
			}
		}
	}
	empty := &bytes.Buffer{}
	if err := (&Report{Load: "put"}).writeHTML(empty); err != nil || strings.Contains(empty.String(), "NaN") {
		t.Errorf("a page without points: %v", err)
	}
}

// Ratios are what people quote: they must be of medians, and say who is ahead.
func TestRatios(t *testing.T) {
	side := func(throughputs ...float64) (all []*Report) {
		for _, v := range throughputs {
			all = append(all, &Report{Throughput: v, Latency: Latency{P99: 100 / v}})
		}
		return all
	}
	got := map[string]Ratio{}
	for _, r := range ratios(side(10, 1000, 20), side(40, 50, 1)) {
		got[r.Figure] = r
	}
	if r := got["throughput"]; r.A != 20 || r.B != 40 || r.Ratio != 2 || r.Better != "b" {
		t.Errorf("throughput %+v", r)
	}
	if r := got["p99_ms"]; r.A != 5 || r.B != 2.5 || r.Better != "b" {
		t.Errorf("p99 %+v", r)
	}
}

// The tool shares the machine with what it measures: what it allocates per event, it takes from the server.
func BenchmarkScanWatch(b *testing.B) {
	answer := &pb.WatchResponse{Header: &pb.ResponseHeader{Revision: 7}}
	for i := range 100 {
		kv := &mvccpb.KeyValue{Key: fmt.Append(nil, "key", i), Value: make([]byte, 128)}
		answer.Events = append(answer.Events, &mvccpb.Event{Kv: kv})
	}
	data, err := answer.MarshalVT()
	if err != nil {
		b.Fatal(err)
	}
	events := 0
	w := &watchReply{event: func([]byte) { events++ }}
	b.ReportAllocs()
	for b.Loop() {
		if err := w.scan(data); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPut is a whole call: client, loopback and the fake server.
func BenchmarkPut(b *testing.B) {
	_, address := startFake(b)
	o := Defaults(Put)
	o.Endpoints, o.Total = []string{address}, int64(b.N)
	l, err := Prepare(context.Background(), o)
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	b.ReportAllocs()
	b.ResetTimer()
	if _, err := l.Run(context.Background(), nil); err != nil {
		b.Fatal(err)
	}
}
