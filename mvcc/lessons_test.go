package mvcc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	bolt "go.etcd.io/bbolt"
)

// The tests of this file each keep out one bug that a store of this kind has
// had; docs/reliability.md has the table.

// entryPut applies one entry that puts one key.
func entryPut(t testing.TB, s *Store, index uint64, key string) {
	t.Helper()
	w := s.Write(Applied{Index: index, Term: 1})
	if _, err := w.Put(&pb.PutRequest{Key: []byte(key), Value: []byte(key)}); err != nil {
		t.Fatal(err)
	}
	w.Close()
}

// onDisk is what a crash would leave now: the transaction, the applied index and
// the newest revision.
func onDisk(t testing.TB, s *Store) (tx int, index uint64, last Revision) {
	t.Helper()
	err := s.disk.read(func(tx0 *bolt.Tx) error {
		tx = tx0.ID()
		index = binary.BigEndian.Uint64(bucket(tx0, BucketMeta).Get([]byte(metaIndex)))
		if k, _ := bucket(tx0, BucketKey).Cursor().Last(); k != nil {
			at, err := parseStamp(k)
			last = at.main
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tx, index, last
}

// If this fails, a crash leaves a file that claims entries which it does not
// hold: the member skips them at replay and differs from the others for ever.
func TestIndexIsSavedWithItsData(t *testing.T) {
	s := openTest(t, testOptions())
	entryPut(t, s, 1, "a")
	s.Publish()
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	for index := uint64(2); index < 50; index += 3 {
		before, _, _ := onDisk(t, s)
		entryPut(t, s, index, "a")
		entryPut(t, s, index+1, "b")
		s.Publish()
		entryPut(t, s, index+2, "c") // applied, but not published with the others yet
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		tx, saved, last := onDisk(t, s)
		if tx != before+1 {
			t.Errorf("index %d and its data took %d commits: a crash may fall between them", index, tx-before)
		}
		if want := Revision(saved + 1); last != want { // revision 1 is the empty store
			t.Errorf("the file says entry %d and holds the data up to revision %d, not %d", saved, last, want)
		}
		s.Publish()
	}
}

// eventsOf takes all that a stream has to tell as "watcher:revision", and what it
// was told besides.
func eventsOf(t testing.TB, ws *WatchStream) (revisions map[int64][]Revision, others []string) {
	t.Helper()
	revisions = map[int64][]Revision{}
	for b := watchPeek(t, ws); b != nil; b = watchPeek(t, ws) {
		if b.Kind != WatchEvents {
			others = append(others, watchText(b))
			continue
		}
		for _, e := range b.Events {
			revisions[b.ID] = append(revisions[b.ID], e.rev)
		}
	}
	return revisions, others
}

func revisions(from, to Revision) (all []Revision) {
	for rev := from; rev <= to; rev++ {
		all = append(all, rev)
	}
	return all
}

// If this fails, a client that was slow while the store was compacted misses
// changes and is not told so.
func TestWatchFullDuringCompaction(t *testing.T) {
	for _, c := range []struct {
		compactTo Revision
		told      bool // that it was overtaken
	}{{2, false}, {5, false}, {60, true}, {101, true}} {
		t.Run(fmt.Sprint("to ", c.compactTo), func(t *testing.T) {
			s := openTest(t, testOptions())
			ws := s.Watch(WatchStreamOptions{OutboxBytesMax: 500})
			defer ws.Close()
			id := watchAdd(t, ws, WatchSpec{Key: []byte("k")})
			for i := range uint64(100) {
				entryPut(t, s, i+1, "k")
				s.Publish()
			}
			if ws.Synced(id) {
				t.Fatal("a hundred events fit into an outbox for a few")
			}
			w := s.Write(Applied{Index: 101, Term: 1})
			if err := w.Compact(c.compactTo); err != nil {
				t.Fatal(err)
			}
			w.Close()
			s.Publish()
			finishCompactions(t, s)
			got, others := eventsOf(t, ws)
			if !c.told {
				if want := revisions(2, 101); !slices.Equal(got[id], want) || len(others) > 0 {
					t.Errorf("heard of %v and %q, want revisions 2 to 101", got[id], others)
				}
				return
			}
			want := fmt.Sprintf("compacted %d to %d @0", id, c.compactTo)
			if !slices.Equal(others, []string{want}) {
				t.Errorf("told %q, want %q", others, want)
			}
			if n := Revision(len(got[id])); !slices.Equal(got[id], revisions(2, n+1)) {
				t.Errorf("before that heard of %v, want the first without a gap", got[id])
			}
		})
	}
}

// If this fails, members that compacted at different moments have different
// hashes and are taken for corrupt, or a watcher misses the deletion.
func TestTombstoneAtTheCompactedRevision(t *testing.T) {
	o := testOptions()
	o.CompactionBatch = 1
	early, late := openTest(t, o), openTest(t, o)
	both := func(do func(*Store)) {
		do(early)
		do(late)
	}
	entry := func(change func(*Writer) error) {
		t.Helper()
		both(func(s *Store) {
			w := s.Write(Applied{Index: s.Applied().Index + 1, Term: 1})
			if err := change(w); err != nil {
				t.Fatal(err)
			}
			w.Close()
			s.Publish()
		})
	}
	put := func(key string) {
		entry(func(w *Writer) error { _, err := w.Put(&pb.PutRequest{Key: []byte(key)}); return err })
	}
	put("a")
	put("b")
	entry(func(w *Writer) error { _, err := w.DeleteRange(&pb.DeleteRangeRequest{Key: []byte("b")}); return err })
	put("a") // revision 5
	entry(func(w *Writer) error { return w.Compact(4) })
	finishCompactions(t, early) // late has not begun
	early = reopened(t, early, o)
	equalHashes(t, early, late, 4, 5)
	both(func(s *Store) {
		events, _, err := s.history(4, 5, []byte("a"), []byte("z"), 100, 1<<20)
		if err != nil || len(events) != 2 || events[0].kind != EventDelete || events[0].rev != 4 {
			t.Errorf("a watcher from the compacted revision hears of %v, %v, want the deletion and the put", events, err)
		}
		if _, _, err := s.history(3, 5, []byte("a"), nil, 100, 1<<20); !errors.Is(err, ErrCompacted) {
			t.Errorf("a watcher from below: %v", err)
		}
	})
	finishCompactions(t, late)
	equalHashes(t, early, late, 4, 5)
	entry(func(w *Writer) error { return w.Compact(5) })
	both(func(s *Store) { finishCompactions(t, s) })
	equalHashes(t, early, late, 5)
	x, _ := dumpFile(t, early)
	y, _ := dumpFile(t, late)
	for _, key := range sortedKeys(y) {
		if _, there := x[key]; !there {
			t.Errorf("%q is left in one file only", key)
		}
	}
	if len(x) != len(y) {
		t.Errorf("%d pairs in one file, %d in the other", len(x), len(y))
	}
}

func equalHashes(t testing.TB, a, b *Store, at ...Revision) {
	t.Helper()
	for _, rev := range at {
		x, err := a.HashKV(rev)
		if err != nil {
			t.Fatal(err)
		}
		y, err := b.HashKV(rev)
		if err != nil || x.Hash != y.Hash || x.CompactRevision != y.CompactRevision {
			t.Errorf("hash at %d: %+v and %+v, %v", rev, x, y, err)
		}
	}
}

// reopened is the store of the same file after a restart.
func reopened(t testing.TB, s *Store, o Options) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(s.path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { again.Close() })
	return again
}

// If this fails, a client of a member that was given the leader's snapshot sees
// changes twice, goes back in time, or never hears of what it missed.
func TestWatchAcrossInstall(t *testing.T) {
	dir := t.TempDir()
	newer, err := Open(filepath.Join(dir, "newer"), testOptions())
	if err != nil {
		t.Fatal(err)
	}
	const before, installed, after = 20, 60, 80 // revisions
	for rev := uint64(2); rev <= installed; rev++ {
		entryPut(t, newer, rev-1, "k")
	}
	newer.Publish()
	if err := newer.Close(); err != nil {
		t.Fatal(err)
	}
	s := openTest(t, testOptions())
	fast, slow := s.Watch(WatchStreamOptions{}), s.Watch(WatchStreamOptions{OutboxBytesMax: 300})
	defer fast.Close()
	defer slow.Close()
	live := watchAdd(t, fast, WatchSpec{Key: []byte("k")})
	future := watchAdd(t, fast, WatchSpec{Key: []byte("k"), From: 40})
	far := watchAdd(t, fast, WatchSpec{Key: []byte("k"), From: installed + 10})
	full := watchAdd(t, slow, WatchSpec{Key: []byte("k")})
	for rev := uint64(2); rev <= before; rev++ {
		entryPut(t, s, rev-1, "k")
		s.Publish()
	}
	heard := watchPeek(t, fast) // what was heard before must not come again
	first := heard.Events[len(heard.Events)-1].rev
	if err := s.Install(filepath.Join(dir, "newer")); err != nil {
		t.Fatal(err)
	}
	for rev := uint64(installed + 1); rev <= after; rev++ {
		entryPut(t, s, rev-1, "k")
		s.Publish()
	}
	got, _ := eventsOf(t, fast)
	gotSlow, _ := eventsOf(t, slow)
	for _, c := range []struct {
		what string
		got  []Revision
		from Revision
	}{{"live", got[live], first + 1}, {"of a revision to come", got[future], 40}, {"far ahead", got[far], installed + 10}, {"full", gotSlow[full], 2}} {
		if want := revisions(c.from, after); !slices.Equal(c.got, want) {
			t.Errorf("the watcher that was %s heard of %v, want %d to %d", c.what, c.got, c.from, after)
		}
	}
}
