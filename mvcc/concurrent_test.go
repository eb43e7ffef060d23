package mvcc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// TestReadersBesideEverything: if it fails, a client's list mixes two
// revisions, or breaks while the store flushes, compacts or defragments.
//
// Every transaction writes the same number under all keys, so any list at any
// revision must hold one number.
func TestReadersBesideEverything(t *testing.T) {
	o := testOptions()
	o.TailBytes = 4 << 10
	o.FlushRecords = 100
	o.CompactionBatch = 50
	s := openTest(t, o)
	running(t, s)
	const keys = 20
	write := func(n int) {
		w := s.Write(Applied{Index: uint64(n), Term: 1})
		r := &pb.TxnRequest{}
		for k := range keys {
			r.Success = append(r.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
				RequestPut: &pb.PutRequest{Key: fmt.Appendf(nil, "k%03d", k), Value: strconv.AppendInt(nil, int64(n), 10)}}})
		}
		if _, err := w.Txn(r, leaseExists); err != nil {
			t.Error(err)
		}
		if n%50 == 0 {
			if err := w.Compact(s.Revision() - 20); err != nil {
				t.Error(err)
			}
		}
		w.Close()
		s.Publish()
	}
	write(1)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for r := range 3 {
		rnd := rand.New(rand.NewPCG(uint64(r), 9))
		wg.Go(func() {
			for !stop.Load() {
				readOne(t, s, rnd, keys)
			}
		})
	}
	wg.Go(func() {
		for !stop.Load() {
			disturb(t, s)
		}
	})
	for n := 2; n < 600; n++ {
		write(n)
	}
	stop.Store(true)
	wg.Wait()
}

// readOne lists the newest or a recent revision and pages through it.
func readOne(t *testing.T, s *Store, rnd *rand.Rand, keys int64) {
	r := &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")}
	if rnd.IntN(2) == 0 {
		r.Revision = int64(s.Revision()) - rnd.Int64N(10)
	}
	if rnd.IntN(2) == 0 {
		r.Limit = 7
	}
	seen := map[string]bool{}
	var n int64
	for {
		resp, err := s.Range(r)
		if errors.Is(err, ErrCompacted) && r.Revision > 0 {
			return
		}
		if r.Revision == 1 {
			return
		}
		if err != nil || resp.Count+n != keys {
			t.Errorf("range %v: %d of %d keys: %v", r, resp.GetCount()+n, keys, err)
			return
		}
		for _, kv := range resp.Kvs {
			n++
			seen[string(kv.Value)] = true
		}
		if !resp.More {
			break
		}
		if r.Revision <= 0 {
			r.Revision = resp.Header.Revision
		}
		r.Key = append(resp.Kvs[len(resp.Kvs)-1].Key[:4:4], 0)
	}
	if n != keys || len(seen) != 1 {
		t.Errorf("range %v: %d keys with numbers %v", r, n, seen)
	}
}

func disturb(t *testing.T, s *Store) {
	if err := s.Defragment(context.Background()); err != nil {
		t.Error(err)
	}
	snap, err := s.Snapshot(context.Background())
	if err != nil {
		t.Error(err)
		return
	}
	if n, err := io.Copy(io.Discard, snap); err != nil || n != snap.Size() {
		t.Errorf("snapshot: %d of %d bytes: %v", n, snap.Size(), err)
	}
	if err := snap.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.HashKV(0); err != nil {
		t.Error(err)
	}
	if err := s.Load(BucketMeta, func(_, _ []byte) error { return nil }); err != nil {
		t.Error(err)
	}
	s.LeaseKeys(1)
	s.Stats()
	<-s.CompactionDone(s.CompactRevision())
}

// TestWritesDuringDefragmentation: if it fails, what was written while the
// file was defragmented is gone after a restart.
func TestWritesDuringDefragmentation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s, err := Open(path, testOptions())
	if err != nil {
		t.Fatal(err)
	}
	fill(t, s, 100)
	write := func(value string) {
		w := s.Write(Applied{s.Applied().Index + 1, 1})
		if _, err := w.Put(&pb.PutRequest{Key: benchKey(7), Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
		w.Set(BucketAuth, []byte("changed"), []byte(value))
		w.Delete(BucketAuth, []byte("deleted"))
		w.Close()
		s.Publish()
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	w := s.Write(s.Applied())
	w.Set(BucketAuth, []byte("deleted"), []byte("x"))
	w.Close()
	write("before")
	c, begun := s.beginCopy(context.Background())
	if !begun {
		t.Fatal("a copy is running already")
	}
	fresh, err := openDisk(path+".tmp", testOptions())
	if err != nil {
		t.Fatal(err)
	}
	last, err := s.copyAll(c, fresh)
	if err != nil {
		t.Fatal(err)
	}
	write("meanwhile")
	old, err := s.swap(c, fresh, path+".tmp", last)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := dumpFile(t, &Store{state: state{disk: old}})
	if err := errors.Join(old.db.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(path, testOptions()); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, _ := dumpFile(t, s); !maps.Equal(got, want) {
		t.Fatalf("%d pairs are left of %d", len(got), len(want))
	}
	if kv, err := s.Range(&pb.RangeRequest{Key: benchKey(7)}); err != nil || string(kv.Kvs[0].Value) != "meanwhile" {
		t.Fatalf("%v, %v", kv, err)
	}
}

// TestBackpressure: if it fails, a slow disk lets memory grow without bound.
func TestBackpressure(t *testing.T) {
	o := testOptions()
	o.UnflushedBytesMax = 1000
	s := openTest(t, o)
	running(t, s)
	for i := range uint64(200) {
		w := s.Write(Applied{i + 1, 1})
		if _, err := w.Put(&pb.PutRequest{Key: []byte("k"), Value: make([]byte, 400)}); err != nil {
			t.Fatal(err)
		}
		w.Close()
		s.Publish()
		if n := s.Stats().UnflushedBytes; n > o.UnflushedBytesMax {
			t.Fatalf("%d bytes are unflushed after Publish", n)
		}
	}
}

// TestFailedCommitIsFinal: if it fails, a member goes on after its disk lost a
// commit, and acknowledges what it cannot keep.
func TestFailedCommitIsFinal(t *testing.T) {
	s := openTest(t, testOptions())
	if err := s.disk.db.Close(); err != nil {
		t.Fatal(err)
	}
	w := s.Write(Applied{1, 1})
	if _, err := w.Put(&pb.PutRequest{Key: []byte("k")}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	s.Publish()
	err := s.Run(context.Background())
	if err == nil {
		t.Fatal("Run goes on after a failed commit")
	}
	if again := s.Flush(); !errors.Is(again, err) {
		t.Fatalf("flush after a failed commit: %v, want %v", again, err)
	}
}

// TestCompactionCostsWhatItRemoves: if it fails, compacting a large store that
// changed little stalls the member.
func TestCompactionCostsWhatItRemoves(t *testing.T) {
	s := openTest(t, testOptions())
	fill(t, s, 20_000)
	put := func(i int) {
		w := s.Write(s.Applied())
		if _, err := w.Put(&pb.PutRequest{Key: benchKey(i)}); err != nil {
			t.Fatal(err)
		}
		w.Close()
	}
	compact := func() {
		w := s.Write(s.Applied())
		if err := w.Compact(w.rev()); err != nil {
			t.Fatal(err)
		}
		w.Close()
		s.Publish()
		finishCompactions(t, s)
	}
	for i := range 100 {
		put(i * 10)
	}
	compact()
	if got := s.counts.compactTouched.Load(); got != 100 {
		t.Fatalf("removing 100 revisions among 20,000 keys looked at %d", got)
	}
	put(1)
	compact()
	if got := s.counts.compactTouched.Load(); got != 101 {
		t.Fatalf("removing one revision more looked at %d", got-100)
	}
	if got := s.Stats().CompactedRevisions; got != 101 {
		t.Fatalf("%d revisions were removed", got)
	}
}
