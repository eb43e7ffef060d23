package mvcc

import (
	"testing"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// TestCompactionHash: if it fails, members that agree raise a corruption alarm,
// or members that differ do not.
func TestCompactionHash(t *testing.T) {
	o := testOptions()
	o.CompactHashes = true
	s := openTest(t, o)
	n := newNaive()
	put := func(key, value string) {
		w := s.Write(s.Applied())
		e := naiveEntry{n: n}
		r := &pb.PutRequest{Key: []byte(key), Value: []byte(value)}
		if _, err := w.Put(r); err != nil {
			t.Fatal(err)
		}
		w.Close()
		if _, err := e.put(r); err != nil {
			t.Fatal(err)
		}
		n.rev = e.rev()
	}
	for round := range 12 {
		put("a", "1")
		put("b", "2")
		put("a", "3")
		previous := n.compact
		want := HashKV{Hash: n.hashKV(n.rev), CompactRevision: previous, HashRevision: n.rev, Revision: n.rev}
		w := s.Write(s.Applied())
		if err := w.Compact(n.rev); err != nil {
			t.Fatal(err)
		}
		w.Close()
		s.Publish()
		finishCompactions(t, s)
		n.compactTo(n.rev)
		if got, err := s.HashKV(n.rev); err != nil || got != want {
			t.Fatalf("round %d: hash stored at compaction is %+v, %v; want %+v", round, got, err, want)
		}
	}
	kept := s.CompactionHashes()
	if len(kept) != hashesKept || kept[hashesKept-1].HashRevision != n.rev || kept[0].HashRevision >= kept[1].HashRevision {
		t.Fatalf("hashes that are kept: %+v", kept)
	}
}

// TestCompactionHashAfterCrash: if it fails, a member that crashed in the middle
// of a compaction hashes what is left of it and is accused of corruption.
func TestCompactionHashAfterCrash(t *testing.T) {
	o := testOptions()
	o.CompactHashes, o.CompactionBatch = true, 1
	s := openTest(t, o)
	for range 10 {
		w := s.Write(s.Applied())
		if _, err := w.Put(&pb.PutRequest{Key: []byte("k")}); err != nil {
			t.Fatal(err)
		}
		w.Close()
	}
	compact := func(to Revision) {
		w := s.Write(s.Applied())
		if err := w.Compact(to); err != nil {
			t.Fatal(err)
		}
		w.Close()
		s.Publish()
	}
	compact(8)
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if more, err := s.compactSlice(); err != nil || !more {
		t.Fatalf("first slice: more %t, %v; want a compaction of several", more, err)
	}
	path := s.path
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var err error
	if s, err = Open(path, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	finishCompactions(t, s)
	if kept := s.CompactionHashes(); len(kept) != 0 || s.CompactRevision() != 8 {
		t.Errorf("hashes of an interrupted compaction: %+v; compacted to %d", kept, s.CompactRevision())
	}
	compact(10)
	finishCompactions(t, s)
	if kept := s.CompactionHashes(); len(kept) != 1 || kept[0].CompactRevision != 8 || kept[0].HashRevision != 10 {
		t.Errorf("hashes of the next compaction: %+v", kept)
	}
}

// TestHashIgnoresPosition: if it fails, two members with the same data have
// different hashes only because one has applied an empty entry more.
func TestHashIgnoresPosition(t *testing.T) {
	s := openTest(t, testOptions())
	fill(t, s, 10)
	before, err := s.Hash()
	if err != nil {
		t.Fatal(err)
	}
	s.Write(Applied{Index: 1000, Term: 9}).Close()
	s.Publish()
	if after, err := s.Hash(); err != nil || after != before {
		t.Fatalf("hash %x became %x, %v", before, after, err)
	}
	w := s.Write(s.Applied())
	w.Set(BucketAuth, []byte("authEnabled"), []byte{1})
	w.Close()
	s.Publish()
	if after, err := s.Hash(); err != nil || after == before {
		t.Fatalf("hash stays %x though a bucket changed, %v", after, err)
	}
}

// TestSnapshotStatus: if it fails, kvctl tells wrong figures of a backup.
func TestSnapshotStatus(t *testing.T) {
	path := t.TempDir() + "/db"
	s, err := Open(path, testOptions())
	if err != nil {
		t.Fatal(err)
	}
	fill(t, s, 50)
	w := s.Write(s.Applied())
	if _, err := w.DeleteRange(&pb.DeleteRangeRequest{Key: benchKey(0), RangeEnd: benchKey(5)}); err != nil {
		t.Fatal(err)
	}
	w.Set(BucketMeta, []byte(metaVersion), []byte("3.7.0"))
	w.Close()
	s.Publish()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	st, err := SnapshotStatus(path)
	if err != nil || st.Revision != 52 || st.TotalKeys != 45 || st.Version != "3.7.0" || st.SizeBytes%4096 != 0 || st.Hash == 0 {
		t.Fatalf("%+v, %v", st, err)
	}
}
