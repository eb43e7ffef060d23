package mvcc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"
	"time"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

func testOptions() Options {
	return Options{NoSync: true, MmapBytes: 1 << 30, CompactionPause: time.Microsecond, LockTimeout: time.Second}
}

func openTest(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "db"), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// finishCompactions does in this goroutine what Run would do.
func finishCompactions(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	for {
		more, err := s.compactSlice()
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return
		}
	}
}

func seedOf(t testing.TB) uint64 {
	seed := rand.Uint64()
	if v := os.Getenv("KVORUM_SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	t.Logf("replay: KVORUM_SEED=%d go test ./mvcc -run '^%s$'", seed, t.Name())
	return seed
}

// gen makes random requests over few keys, so that they meet.
type gen struct {
	*rand.Rand
	rev int64
}

func (g gen) chance(n int) bool { return g.IntN(n) == 0 }
func (g gen) key() []byte       { return fmt.Appendf(nil, "%c%c", 'a'+g.IntN(4), 'a'+g.IntN(4)) }
func (g gen) value() []byte     { return fmt.Appendf(nil, "v%d", g.IntN(1e6)) }
func (g gen) end() []byte {
	switch g.IntN(4) {
	case 0:
		return nil
	case 1:
		return []byte{0}
	}
	return g.key()
}

func (g gen) lease() int64 {
	if g.chance(3) {
		return int64(g.IntN(4)) // 3 does not exist
	}
	return 0
}

func (g gen) put() *pb.PutRequest {
	r := &pb.PutRequest{Key: g.key(), PrevKv: g.chance(3), Lease: g.lease()}
	if r.IgnoreValue = g.chance(8); !r.IgnoreValue {
		r.Value = g.value()
	}
	if g.chance(8) {
		r.IgnoreLease, r.Lease = true, 0
	}
	return r
}

func (g gen) del() *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: g.key(), RangeEnd: g.end(), PrevKv: g.chance(2)}
}

func (g gen) revision() int64 {
	if g.chance(2) {
		return 0
	}
	return g.Int64N(g.rev + 3)
}

func (g gen) rangeReq() *pb.RangeRequest {
	r := &pb.RangeRequest{Key: g.key(), RangeEnd: g.end(), Revision: g.revision()}
	if g.chance(3) {
		r.Limit = g.Int64N(6)
	}
	r.KeysOnly, r.CountOnly = g.chance(4), g.chance(6)
	if g.chance(2) {
		r.SortTarget = pb.RangeRequest_SortTarget(g.IntN(5))
		r.SortOrder = pb.RangeRequest_SortOrder(g.IntN(3))
	}
	for _, f := range []*int64{&r.MinModRevision, &r.MaxModRevision, &r.MinCreateRevision, &r.MaxCreateRevision} {
		if g.chance(8) {
			*f = g.Int64N(g.rev + 2)
		}
	}
	return r
}

func (g gen) compare() *pb.Compare {
	c := &pb.Compare{Key: g.key(), Result: pb.Compare_CompareResult(g.IntN(4)), Target: pb.Compare_CompareTarget(g.IntN(5))}
	if g.chance(4) {
		c.RangeEnd = g.end()
	}
	switch c.Target {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: g.Int64N(4)}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: g.Int64N(g.rev + 1)}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: g.Int64N(g.rev + 1)}
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: g.value()}
	case pb.Compare_LEASE:
		c.TargetUnion = &pb.Compare_Lease{Lease: g.lease()}
	}
	if g.chance(8) {
		c.TargetUnion = nil
	}
	return c
}

func (g gen) txn(depth int, writes bool) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for range g.IntN(3) {
		r.Compare = append(r.Compare, g.compare())
	}
	used := map[string]bool{} // the api refuses the same key twice
	for range g.IntN(4) {
		r.Success = append(r.Success, g.op(depth, writes, used))
	}
	for range g.IntN(4) {
		r.Failure = append(r.Failure, g.op(depth, writes, used))
	}
	return r
}

func (g gen) op(depth int, writes bool, used map[string]bool) *pb.RequestOp {
	n := g.IntN(8)
	if put := g.put(); writes && n < 3 && !used[string(put.Key)] {
		used[string(put.Key)] = true
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}}
	}
	// A delete comes before puts of other operations only where they cannot
	// overlap: here only of one key that nobody puts.
	if del := g.del(); writes && n == 4 && !used[string(del.Key)] {
		used[string(del.Key)] = true
		del.RangeEnd = nil
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: del}}
	}
	if n == 5 && depth > 0 {
		nested := g.txn(depth-1, false)
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: nested}}
	}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: g.rangeReq()}}
}

func leaseExists(id LeaseID) bool { return id == 1 || id == 2 }

// modelRun drives a store and its model with the same operations.
type modelRun struct {
	t       *testing.T
	g       gen
	s       *Store
	path    string
	opts    Options
	n       *naive
	visible *naive // what was published last
	flushed *naive // what a crash must leave
	step    int
}

func (m *modelRun) same(what string, req, got, want proto.Message, gotErr, wantErr error) {
	m.t.Helper()
	if !errors.Is(gotErr, wantErr) {
		m.t.Fatalf("step %d: %s %v: error %v, want %v", m.step, what, req, gotErr, wantErr)
	}
	if gotErr == nil && !proto.Equal(got, want) {
		m.t.Fatalf("step %d: %s %v:\n got %v\nwant %v", m.step, what, req, got, want)
	}
}

// entry applies one random log entry to both.
func (m *modelRun) entry() {
	at := Applied{Index: m.n.applied.Index + 1, Term: 7}
	w := m.s.Write(at)
	e := &naiveEntry{n: m.n}
	switch m.g.IntN(10) {
	case 0, 1, 2, 3:
		r := m.g.put()
		got, err := w.Put(r)
		want, wantErr := e.put(r)
		m.same("put", r, got, want, err, wantErr)
	case 4, 5:
		r := m.g.del()
		got, err := w.DeleteRange(r)
		m.same("delete", r, got, e.deleteRange(r), err, nil)
	case 6, 7:
		r := m.g.txn(2, true)
		got, err := w.Txn(r, leaseExists)
		want, wantErr := e.txn(r, leaseExists)
		m.same("txn", r, got, want, err, wantErr)
	case 8:
		m.revoke(w, e)
	case 9:
		k, v := m.g.key(), m.g.value()
		w.Set(BucketAuth, k, v)
		m.n.others[string(k)] = string(v)
		k = m.g.key()
		w.Delete(BucketAuth, k)
		delete(m.n.others, string(k))
	}
	w.Close()
	m.n.rev, m.n.applied = e.rev(), at
	m.g.rev = int64(m.n.rev)
}

// revoke deletes the keys of a lease.
func (m *modelRun) revoke(w *Writer, e *naiveEntry) {
	id := LeaseID(1 + m.g.IntN(2))
	keys := m.s.LeaseKeys(id)
	var want [][]byte
	for _, kv := range m.n.state(m.n.rev) {
		if kv.Lease == int64(id) {
			want = append(want, kv.Key)
		}
	}
	if len(keys) != len(want) || len(keys) > 0 && !reflect.DeepEqual(keys, want) {
		m.t.Fatalf("step %d: keys of lease %d: %q, want %q", m.step, id, keys, want)
	}
	w.DeleteKeys(keys)
	for _, k := range keys {
		e.deleteRange(&pb.DeleteRangeRequest{Key: k})
	}
}

func (m *modelRun) compact() {
	rev := Revision(m.g.Int64N(int64(m.n.rev) + 2))
	w := m.s.Write(m.n.applied)
	err := w.Compact(rev)
	w.Close()
	m.publish()
	var want error
	switch {
	case rev <= m.n.compact:
		want = ErrCompacted
	case rev > m.n.rev:
		want = ErrFutureRevision
	}
	if !errors.Is(err, want) {
		m.t.Fatalf("step %d: compact to %d: %v, want %v", m.step, rev, err, want)
	}
	if err == nil {
		m.n.compactTo(rev)
		m.visible = m.n.clone()
	}
}

func (m *modelRun) publish() {
	m.s.Publish()
	m.visible = m.n.clone()
}

func (m *modelRun) flush() {
	if err := m.s.Flush(); err != nil {
		m.t.Fatal(err)
	}
	m.flushed = m.visible
}

// crash goes on from a copy of the file as it is now.
func (m *modelRun) crash() {
	m.path = m.copyFile()
	m.s.Close()
	m.n = m.flushed.clone()
	m.open()
}

func (m *modelRun) copyFile() string {
	to := filepath.Join(m.t.TempDir(), "db")
	data, err := os.ReadFile(m.path)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return to
}

func (m *modelRun) open() {
	s, err := Open(m.path, m.opts)
	if err != nil {
		m.t.Fatal(err)
	}
	m.s, m.visible = s, m.n.clone()
	m.g.rev = int64(m.n.rev)
	if s.Revision() != m.n.rev || s.CompactRevision() != m.n.compact || s.Applied() != m.n.applied {
		m.t.Fatalf("step %d: opened at revision %d, compacted %d, applied %v; want %d, %d, %v", m.step,
			s.Revision(), s.CompactRevision(), s.Applied(), m.n.rev, m.n.compact, m.n.applied)
	}
}

// install takes a snapshot, goes back to an older state as a member that was
// away, and installs the snapshot there.
func (m *modelRun) install() {
	m.publish()
	m.flush()
	oldPath, old := m.copyFile(), m.n.clone()
	for range m.g.IntN(4) {
		m.entry()
	}
	m.publish()
	snap, err := m.s.Snapshot(context.Background())
	if err != nil {
		m.t.Fatal(err)
	}
	defer snap.Close()
	m.s.Close()
	want := m.n
	m.path, m.n = oldPath, old
	m.open()
	path := filepath.Join(filepath.Dir(m.path), "received.snap.db")
	f, err := os.Create(path)
	if err != nil {
		m.t.Fatal(err)
	}
	n, err := io.Copy(f, snap)
	f.Close()
	if err != nil || n != snap.Size() || snap.Applied() != want.applied {
		m.t.Fatalf("snapshot of %d bytes, applied %v: %v; want %d, %v", n, snap.Applied(), err, snap.Size(), want.applied)
	}
	if err := m.s.Install(path); err != nil {
		m.t.Fatal(err)
	}
	m.n, m.flushed, m.visible = want, want.clone(), want.clone()
	m.g.rev = int64(m.n.rev)
}

func (m *modelRun) compareReads() {
	for range 5 {
		r := m.g.rangeReq()
		got, err := m.s.Range(r)
		want, wantErr := m.n.rangeAt(r, m.n.rev)
		m.same("range", r, got, want, err, wantErr)
		m.sameEncoded(r, want, wantErr)
	}
	r := m.g.txn(1, false)
	got, err := m.s.Txn(r)
	want, wantErr := (&naiveEntry{n: m.n}).txn(r, leaseExists)
	m.same("read-only txn", r, got, want, err, wantErr)
	others := map[string]string{}
	if err := m.s.Load(BucketAuth, func(k, v []byte) error { others[string(k)] = string(v); return nil }); err != nil {
		m.t.Fatal(err)
	}
	if !reflect.DeepEqual(others, m.n.others) {
		m.t.Fatalf("step %d: auth bucket %v, want %v", m.step, others, m.n.others)
	}
}

// sameEncoded puts the answer together as the wire carries it.
func (m *modelRun) sameEncoded(r *pb.RangeRequest, want *pb.RangeResponse, wantErr error) {
	a, ok, err := m.s.RangeEncoded(r, plainBuffers{})
	if !ok {
		return
	}
	var got *pb.RangeResponse
	if err == nil {
		got = &pb.RangeResponse{}
		if err := got.UnmarshalVT(bytes.Join(a.Kvs, nil)); err != nil {
			m.t.Fatalf("step %d: list %v: %v", m.step, r, err)
		}
		got.Header = &pb.ResponseHeader{Revision: int64(a.Revision)}
		got.Count, got.More = a.Count, a.More
	}
	m.same("list", r, got, want, err, wantErr)
}

// plainBuffers makes them as they are asked for.
type plainBuffers struct{}

func (plainBuffers) Buffer(size int) []byte { return make([]byte, 0, size) }
func (plainBuffers) Reset()                 {}

func (m *modelRun) compareHash() {
	rev := Revision(m.g.Int64N(int64(m.n.rev)) + 1)
	got, err := m.s.HashKV(rev)
	m.flushed = m.n.clone()
	if rev < m.n.compact {
		if !errors.Is(err, ErrCompacted) {
			m.t.Fatalf("hash at compacted revision %d: %v", rev, err)
		}
		return
	}
	want := HashKV{Hash: m.n.hashKV(rev), CompactRevision: m.n.compact, HashRevision: rev, Revision: m.n.rev}
	if err != nil || got != want {
		m.t.Fatalf("step %d: hash %+v, %v; want %+v", m.step, got, err, want)
	}
}

// compareHistory checks the events after the compaction against the versions.
func (m *modelRun) compareHistory() {
	key, end := m.g.key(), m.g.end()
	from := max(m.n.compact, 1) + Revision(m.g.IntN(5))
	var want, got []string
	for _, v := range m.n.versions {
		if v.main >= from && inNaive(v.kv.Key, key, end) {
			want = append(want, fmt.Sprintf("%d %v %s %s", v.main, v.tomb, v.kv.Key, v.kv.Value))
		}
	}
	for next := from; next <= m.n.rev; {
		events, then, err := m.s.history(next, m.n.rev, key, end, 1+m.g.IntN(20), 1<<20)
		if err != nil || then <= next {
			m.t.Fatalf("step %d: history from %d goes on at %d: %v", m.step, next, then, err)
		}
		for _, e := range events {
			if e.rev < next || e.rev >= then {
				m.t.Fatalf("step %d: event of revision %d in history [%d, %d)", m.step, e.rev, next, then)
			}
			kv := decodeTest(m.t, e.record)
			if kv.ModRevision != int64(e.rev) || string(kv.Key) != string(e.key) {
				m.t.Fatalf("step %d: event %d %q has record %v", m.step, e.rev, e.key, kv)
			}
			got = append(got, fmt.Sprintf("%d %v %s %s", e.rev, e.kind == EventDelete, e.key, kv.Value))
			m.comparePrev(e)
		}
		next = then
	}
	if !reflect.DeepEqual(got, want) {
		m.t.Fatalf("step %d: history of [%q, %q) from %d:\n got %v\nwant %v", m.step, key, end, from, got, want)
	}
}

func (m *modelRun) comparePrev(e *Event) {
	data, err := m.s.valueAt(e.key, e.rev)
	if e.rev-1 < m.n.compact {
		if !errors.Is(err, ErrCompacted) {
			m.t.Fatalf("value of %q before compacted %d: %v", e.key, e.rev, err)
		}
		return
	}
	want, _ := m.n.rangeAt(&pb.RangeRequest{Key: e.key, Revision: int64(e.rev - 1)}, m.n.rev)
	if err != nil || (data != nil) != (want.Count == 1) || data != nil && !proto.Equal(decodeTest(m.t, data), want.Kvs[0]) {
		m.t.Fatalf("value of %q before %d: %x, %v; want %v", e.key, e.rev, data, err, want)
	}
}

// TestModel: if it fails, a client reads something that was never written, or
// misses something that was, perhaps only after a crash or a compaction.
func TestModel(t *testing.T) {
	runs := 30
	if os.Getenv("KVORUM_LONG") != "" {
		runs = 500
	}
	seed := seedOf(t)
	for run := range uint64(runs) {
		modelOnce(t, seed+run)
		if t.Failed() {
			return
		}
	}
}

func modelOnce(t *testing.T, seed uint64) {
	defer func() {
		if t.Failed() {
			t.Logf("seed of this run: KVORUM_SEED=%d", seed)
		}
	}()
	m := &modelRun{t: t, g: gen{Rand: rand.New(rand.NewPCG(seed, 1)), rev: 1}, n: newNaive(), opts: testOptions()}
	m.path = filepath.Join(t.TempDir(), "db")
	m.opts.TailBytes = 1 + m.g.IntN(2000)
	m.opts.CompactionBatch = 1 + m.g.IntN(20)
	m.flushed = m.n.clone()
	m.open()
	defer func() { m.s.Close() }()
	for m.step = range 150 {
		m.entry()
		if !m.g.chance(3) {
			m.publish()
			m.compareReads()
		}
		m.upkeep()
	}
	m.publish()
	m.flush()
	m.s.Close()
	r, err := Check(m.path)
	for _, p := range r.Problems { // nobody made the leases
		if !leaseProblem(p.String()) {
			t.Fatalf("check after the run: %s", p)
		}
	}
	if want := len(m.n.state(m.n.rev)); err != nil || r.Keys != want || r.Revision != m.n.rev {
		t.Fatalf("check: %+v, %v; want %d keys at %d", r, err, want, m.n.rev)
	}
}

// upkeep does one of the things that are not on a client's path.
func (m *modelRun) upkeep() {
	switch m.g.IntN(24) {
	case 0, 1, 2, 3:
		m.flush()
	case 4:
		m.publish()
		m.compact()
	case 5, 6:
		m.publish()
		m.flush()
		for range m.g.IntN(4) {
			if _, err := m.s.compactSlice(); err != nil {
				m.t.Fatal(err)
			}
		}
	case 7:
		m.publish()
		m.flush()
		finishCompactions(m.t, m.s)
	case 8:
		m.crash()
	case 9:
		m.publish()
		m.flushed = m.n.clone()
		if err := m.s.Close(); err != nil {
			m.t.Fatal(err)
		}
		m.open()
	case 10:
		m.publish()
		m.compareHash()
	case 11, 12:
		m.publish()
		m.compareHistory()
	case 13:
		m.publish()
		if err := m.s.Defragment(context.Background()); err != nil {
			m.t.Fatal(err)
		}
		m.flushed = m.n.clone()
	case 14:
		m.publish()
		m.install()
	}
}
