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
	if len(s.hashes) != hashesKept {
		t.Fatalf("%d hashes are kept", len(s.hashes))
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
