package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// file is a file in memory that can hang or fail.
type file struct {
	mu     sync.Mutex
	text   bytes.Buffer
	writes int
	fail   error
	gate   chan struct{} // nil: never waits
}

func (f *file) Write(p []byte) (int, error) {
	if f.gate != nil {
		<-f.gate
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes++
	if f.fail != nil {
		f.text.Write(p[:len(p)/2]) // as a full disk does
		return len(p) / 2, f.fail
	}
	return f.text.Write(p)
}

func (f *file) lines() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Split(strings.TrimSpace(f.text.String()), "\n")
}

func put(n int) *Record {
	return &Record{Time: time.Unix(0, 0), Operation: "KV/Put", Key: fmt.Append(nil, n), Code: "OK"}
}

// If this fails, lines are lost or mixed up though nothing was wrong, or each
// costs a write of its own.
func TestEveryLineIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &file{}
		l := New(Options{Out: f, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		var running, writers sync.WaitGroup
		running.Go(func() { l.Run(ctx) })
		const each = 500
		for i := range 4 {
			writers.Go(func() {
				for j := range each {
					l.Write(put(i*each + j))
				}
			})
		}
		writers.Wait()
		synctest.Wait()
		time.Sleep(2 * gatherFor)
		synctest.Wait()
		if n := len(f.lines()); n != 4*each || f.writes > 3 {
			t.Errorf("%d lines in %d writes", n, f.writes)
		}
		l.Write(put(-1))
		cancel()
		running.Wait()
		if lines := f.lines(); !strings.Contains(lines[len(lines)-1], `"key":"-1"`) {
			t.Errorf("the last line before the stop is not there: %s", lines[len(lines)-1])
		}
		l.Write(put(-2))
		if lines := f.lines(); len(lines) != 4*each+2 {
			t.Error("a line after the stop is lost")
		}
		for _, line := range f.lines() {
			if !json.Valid([]byte(line)) {
				t.Fatalf("not JSON: %s", line)
			}
		}
	})
}

// If this fails, a slow disk makes the member's memory grow without bound, or
// lines vanish that nobody counts.
func TestFullQueue(t *testing.T) {
	const queueBytes = 128 << 10
	for _, drop := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := &file{gate: make(chan struct{})}
			l := New(Options{Out: f, DropWhenFull: drop, QueueBytes: queueBytes, Log: slog.New(slog.DiscardHandler)})
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { l.Run(ctx) })
			line := put(1)
			line.Key = bytes.Repeat([]byte("k"), keyBytesMax)
			const count = 3 * queueBytes / keyBytesMax
			written := 0
			running.Go(func() {
				for written = range count {
					l.Write(line)
				}
			})
			synctest.Wait()
			if held := len(l.queue) + cap(l.spare); held > 3*queueBytes {
				t.Errorf("drop %t: %d bytes are held", drop, held)
			}
			if stuck := written < count-1; stuck == drop {
				t.Errorf("drop %t: %d of %d lines were taken while nothing is written", drop, written, count)
			}
			close(f.gate)
			synctest.Wait()
			cancel()
			running.Wait()
			if n := len(f.lines()); int64(n)+l.Dropped() != count || (l.Dropped() > 0) != drop {
				t.Errorf("drop %t: %d lines in the file, %d dropped, of %d", drop, n, l.Dropped(), count)
			}
		})
	}
}

// If this fails, a full disk stops requests, or lines are lost in silence, or the
// first line after it cannot be read.
func TestFailingFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, said := &file{fail: errors.New("no space")}, &bytes.Buffer{}
		l := New(Options{Out: f, Log: slog.New(slog.NewTextHandler(said, nil))})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { l.Run(ctx) })
		for range 3 {
			l.Write(put(1))
			time.Sleep(2 * gatherFor)
			synctest.Wait()
		}
		if l.Lost() != 3 || strings.Count(said.String(), "no space") != 1 {
			t.Errorf("lost %d of 3; said %s", l.Lost(), said)
		}
		f.mu.Lock()
		f.fail = nil
		f.mu.Unlock()
		l.Write(put(7))
		time.Sleep(2 * gatherFor)
		synctest.Wait()
		lines := f.lines()
		if last := lines[len(lines)-1]; !json.Valid([]byte(last)) || !strings.Contains(last, `"key":"7"`) || !strings.Contains(said.String(), "written again") {
			t.Errorf("after the disk had room: %q; said %s", last, said)
		}
		cancel()
		running.Wait()
	})
}

// If this fails, a line cannot be read, or says something else than was asked.
func TestLine(t *testing.T) {
	r := Record{
		Time: time.Date(2026, 11, 21, 23, 0, 38, 408151000, time.UTC), User: `a"b`, Remote: "10.0.0.1:5", CommonName: "cn\n", Operation: "KV/Put",
		Key: []byte("foo\x00"), Lease: 7, Revision: 42, Code: "OK", Took: 812 * time.Microsecond, BytesIn: 16, BytesOut: 26,
	}
	const want = `{"time":"2026-11-21T23:00:38.408151Z","user":"a\"b","remote":"10.0.0.1:5","cn":"cn\u000a","op":"KV/Put",` +
		`"key":"foo\u0000","lease":7,"revision":42,"code":"OK","duration_us":812,"bytes_in":16,"bytes_out":26}` + "\n"
	if got := string(r.append(nil)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, c := range []struct {
		record Record
		want   string
	}{
		{Record{Key: []byte{0xff}, End: []byte("z")}, `"key_base64":"/w==","range_end":"z"`},
		{Record{Key: bytes.Repeat([]byte("k"), 1000)}, strings.Repeat("k", keyBytesMax) + `","key_bytes":1000`},
		{Record{Error: "a\xff" + strings.Repeat("x", 5000)}, `"error":"a` + "\uFFFD" + `xxx`},
		{Record{OfWatch: true}, `"watch_id":0`},
		{Record{From: netip.MustParseAddrPort("[::ffff:10.0.0.1]:5")}, `"remote":"10.0.0.1:5"`},
		{Record{From: netip.MustParseAddrPort("[fe80::1]:5")}, `"remote":"[fe80::1]:5"`},
	} {
		got := c.record.append(nil)
		if !json.Valid(got) || !strings.Contains(string(got), c.want) || len(got) > 3000 {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}

// If this fails, what a transaction touched cannot be found, or a large one makes
// a line without end.
func TestTxnIsNamed(t *testing.T) {
	putOp := func(key string) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte("secret"), Lease: 3}}}
	}
	inner := &pb.TxnRequest{Success: []*pb.RequestOp{putOp("deep")}}
	txn := &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte("c"), TargetUnion: &pb.Compare_Value{Value: []byte("secret")}}},
		Success: []*pb.RequestOp{putOp("a"), {Request: &pb.RequestOp_RequestTxn{RequestTxn: inner}}},
		Failure: []*pb.RequestOp{
			{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("r"), RangeEnd: []byte("s")}}},
			{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("d")}}},
		},
	}
	const want = `"ops":[{"op":"if","key":"c"},{"op":"then put","key":"a","lease":3},{"op":"then then put","key":"deep","lease":3},` +
		`{"op":"else range","key":"r","range_end":"s"},{"op":"else delete","key":"d"}]`
	got := string((&Record{Txn: txn}).append(nil))
	if !json.Valid([]byte(got)) || !strings.Contains(got, want) || strings.Contains(got, "secret") {
		t.Errorf("%s, want %s", got, want)
	}
	for range 1000 {
		txn.Success = append(txn.Success, putOp(strings.Repeat("k", 10_000)))
	}
	long := (&Record{Txn: txn}).append(nil)
	if !json.Valid(long) || len(long) > opsMax*(keyBytesMax+100) || !strings.Contains(string(long), `"more_ops":973`) {
		t.Errorf("a large transaction makes a line of %d bytes that ends in %s", len(long), long[len(long)-100:])
	}
}

func BenchmarkWrite(b *testing.B) {
	l := New(Options{Out: &file{}, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() { l.Run(ctx) })
	r := put(1)
	r.User, r.From = "alice", netip.MustParseAddrPort("10.0.0.1:57098")
	b.ReportAllocs()
	for b.Loop() {
		l.Write(r)
	}
	cancel()
	running.Wait()
}
