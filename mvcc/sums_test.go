package mvcc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	bolt "go.etcd.io/bbolt"
)

// fillForSums makes a store with history, deletions, a compaction, large values
// and pairs in other buckets, all of it in the file.
func fillForSums(t *testing.T, path string, o Options, r *rand.Rand) *Store {
	t.Helper()
	s, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 700 {
		w := s.Write(Applied{Index: uint64(i + 1), Term: 1})
		size := r.IntN(100)
		if i%97 == 0 {
			size = 20_000
		}
		if _, err := w.Put(&pb.PutRequest{Key: fmt.Appendf(nil, "k%03d", r.IntN(300)), Value: bytes.Repeat([]byte{byte(r.IntN(256))}, size)}); err != nil {
			t.Fatal(err)
		}
		if i%13 == 0 {
			if _, err := w.DeleteRange(&pb.DeleteRangeRequest{Key: []byte("k1"), RangeEnd: fmt.Appendf(nil, "k1%02d", r.IntN(20))}); err != nil {
				t.Fatal(err)
			}
		}
		w.Set(BucketLease, fmt.Appendf(nil, "lease%02d", i%40), fmt.Appendf(nil, "ttl %d", i))
		if i == 300 {
			if err := w.Compact(200); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		if i%50 == 0 {
			s.Publish()
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.Publish()
	finishCompactions(t, s)
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	return s
}

// everything is all that can be read of a store: keys, their history, and other
// buckets.
func everything(s *Store) (map[string]string, error) {
	out := map[string]string{}
	rev := s.Revision()
	for _, at := range []Revision{0, rev - 100, rev - 300} {
		a, err := s.Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: int64(at)})
		if err != nil {
			return nil, err
		}
		for _, kv := range a.Kvs {
			out[fmt.Sprint(at, " ", string(kv.Key))] = kv.String()
		}
	}
	for from := Revision(250); from <= rev; {
		events, next, err := s.history(from, rev, []byte{0}, []byte{0}, 1000, 1<<20)
		if err != nil {
			return nil, err
		}
		for i, e := range events {
			out[fmt.Sprint("event ", from, " ", i)] = fmt.Sprintf("%d %q %x", e.kind, e.key, e.record)
		}
		from = next
	}
	for _, b := range allBuckets() {
		if b == BucketKey {
			continue
		}
		err := s.Load(b, func(k, v []byte) error {
			out[fmt.Sprint(b, " ", string(k))] = string(v)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	out["applied"] = fmt.Sprint(s.Applied(), rev, s.CompactRevision())
	return out, nil
}

func sumsSeed(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano()) % 1e9
	if text := os.Getenv("KVORUM_SEED"); text != "" {
		fmt.Sscan(text, &seed)
	}
	t.Logf("seed %d; replay with: KVORUM_SEED=%d go test -count=1 -run '^%s$' ./mvcc", seed, seed, t.Name())
	return rand.New(rand.NewPCG(seed, 1))
}

// If this fails, a bit that flips on the disk while a member is down is served to
// clients afterwards, or the member does not start although its data is sound.
func TestFlippedBitsAreFoundAtOpen(t *testing.T) {
	r := sumsSeed(t)
	o := testOptions()
	dir := t.TempDir()
	s := fillForSums(t, filepath.Join(dir, "db"), o, r)
	want, err := everything(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	sound, err := os.ReadFile(filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	var path string
	const flips = 150
	found, named := 0, 0
	for range flips {
		path = filepath.Join(t.TempDir(), "damaged")
		bit := r.IntN(len(sound) * 8)
		sound[bit/8] ^= 1 << (bit % 8)
		err := os.WriteFile(path, sound, 0o600)
		sound[bit/8] ^= 1 << (bit % 8)
		if err != nil {
			t.Fatal(err)
		}
		damaged, err := Open(path, o)
		if err != nil {
			found++
			var d *Damage
			if errors.As(err, &d) {
				named++
			}
			continue
		}
		got, err := everything(damaged)
		if err == nil && !maps.Equal(got, want) {
			t.Errorf("bit %d of byte %d flipped: %s", bit%8, bit/8, firstDifference(got, want))
		}
		damaged.Close()
	}
	t.Logf("%d of %d flips found, %d with file, offset and key; the others hit free space", found, flips, named)
	if named < flips/8 {
		t.Errorf("only %d of %d flips were named", named, flips)
	}
}

func firstDifference(got, want map[string]string) string {
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if got[k] != want[k] {
			return fmt.Sprintf("%s is %.100q and should be %.100q", k, got[k], want[k])
		}
	}
	return "something is there that should not be"
}

// damages collects what a store tells of.
type damages struct {
	mu  sync.Mutex
	all []*Damage
}

func (d *damages) add(one *Damage) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = append(d.all, one)
}

// recordOffset is where in the file the value of a record is.
func recordOffset(t *testing.T, s *Store, key string) (at int64, record []byte) {
	t.Helper()
	stamp := s.view.Load().tree.get(key).at
	err := s.disk.read(func(tx *bolt.Tx) error {
		v := bucket(tx, BucketKey).Get(stamp.appendKey(nil))
		checks := s.disk.sums(tx)
		at, record = checks.offset(v), bytes.Clone(v)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return at, record
}

func flipAt(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// If this fails, a bit that flips on the disk of a running member is served to
// clients, by a read, in the past, or to a watcher, or the scrub misses it, or
// does not say where it is.
func TestFlippedBitIsNeverServed(t *testing.T) {
	r := sumsSeed(t)
	o := testOptions()
	o.TailBytes = 1
	var told damages
	o.Damaged = told.add
	path := filepath.Join(t.TempDir(), "db")
	s := fillForSums(t, path, o, r)
	defer s.Close()
	if err := s.Scrub(context.Background(), func(ScrubProgress) {}); err != nil {
		t.Fatalf("scrub of a sound file: %v", err)
	}
	key := "k250"
	w := s.Write(Applied{Index: 1000, Term: 1})
	if _, err := w.Put(&pb.PutRequest{Key: []byte(key), Value: []byte("a value to be damaged")}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	s.Publish()
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	at, record := recordOffset(t, s, key)
	flipAt(t, path, at+int64(len(record))-3)
	for what, read := range map[string]func() error{
		"get":  func() error { _, err := s.Range(&pb.RangeRequest{Key: []byte(key)}); return err },
		"list": func() error { _, err := s.Range(&pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")}); return err },
		"watch": func() error {
			_, _, err := s.history(s.Revision(), s.Revision(), []byte(key), nil, 100, 1<<20)
			return err
		},
		"scrub": func() error { return s.Scrub(context.Background(), func(ScrubProgress) {}) },
	} {
		told.all = nil
		err := read()
		var d *Damage
		if !errors.As(err, &d) || !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s of a damaged record: %v", what, err)
			continue
		}
		if d.File != path || d.Offset != at || string(d.Key) != key || d.Rev != s.Revision() {
			t.Errorf("%s names %+v; the damage is in %s at %d, key %s, revision %d", what, d, path, at, key, s.Revision())
		}
		if len(told.all) == 0 {
			t.Errorf("%s: the member is not told", what)
		}
	}
	if a, err := s.Range(&pb.RangeRequest{Key: []byte("k299")}); err != nil {
		t.Errorf("a sound key: %v, %v", a, err)
	}
}

// If this fails, checksums are lost or wrong after a defragmentation, a
// compaction or a restart, and sound data is taken for damaged, or the reverse.
func TestChecksumsFollowTheFile(t *testing.T) {
	r := sumsSeed(t)
	o := testOptions()
	o.TailBytes = 1
	path := filepath.Join(t.TempDir(), "db")
	s := fillForSums(t, path, o, r)
	scrub := func(when string) {
		t.Helper()
		if !s.disk.summed {
			t.Fatalf("%s: there are no checksums", when)
		}
		if err := s.Scrub(context.Background(), func(ScrubProgress) {}); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
	}
	scrub("filled")
	for i := range 5 {
		done := make(chan error, 1)
		go func() { done <- s.Defragment(context.Background()) }()
		for j := range 50 {
			w := s.Write(Applied{Index: uint64(2000 + 100*i + j), Term: 1})
			if _, err := w.Put(&pb.PutRequest{Key: fmt.Appendf(nil, "d%d", r.IntN(9)), Value: []byte("v")}); err != nil {
				t.Fatal(err)
			}
			w.Set(BucketLease, fmt.Appendf(nil, "more%d", j), []byte("x"))
			w.Close()
			s.Publish()
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		scrub("defragmented")
		w := s.Write(Applied{Index: uint64(2099 + 100*i), Term: 1})
		if err := w.Compact(s.Revision() - 10); err != nil {
			t.Fatal(err)
		}
		w.Delete(BucketLease, []byte("more3"))
		w.Close()
		s.Publish()
		finishCompactions(t, s)
		scrub("compacted")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		var err error
		if s, err = Open(path, o); err != nil {
			t.Fatal(err)
		}
		scrub("opened again")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// If this fails, a member does not start on the data of etcd, which has no
// checksums, or takes what etcd has changed since for damage.
func TestDataWithoutChecksumsIsTaken(t *testing.T) {
	r := sumsSeed(t)
	path := filepath.Join(t.TempDir(), "db")
	s := fillForSums(t, path, testOptions(), r)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(tx *bolt.Tx) error{
		"no bucket": func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte(bucketSums)) },
		"written by etcd": func(tx *bolt.Tx) error {
			b := bucket(tx, BucketKey)
			k, _ := b.Cursor().Last()
			at, _ := parseStamp(k)
			at.main++
			record, _ := encodeTombstone("gone", at.main)
			at.tomb = true
			applied := binaryIndex(9)
			return errors.Join(b.Put(at.appendKey(nil), record), bucket(tx, BucketMeta).Put([]byte(metaIndex), applied))
		},
	} {
		t.Run(name, func(t *testing.T) {
			db, err := bolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.Update(change), db.Close()); err != nil {
				t.Fatal(err)
			}
			s, err := Open(path, testOptions())
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(s.Scrub(context.Background(), func(ScrubProgress) {}), s.Close()); err != nil {
				t.Fatal(err)
			}
			if rep, err := Check(path); err != nil || len(rep.Problems) > 0 {
				t.Errorf("check: %v, %v", rep.Problems, err)
			}
		})
	}
}

func binaryIndex(i byte) []byte { return []byte{0, 0, 0, 0, 0, 1, 0, i} }

// BenchmarkScrub is how fast everything is checked, without the pauses.
func BenchmarkScrub(b *testing.B) {
	s := openTest(b, testOptions())
	fillLarge(b, s)
	b.SetBytes(s.Stats().SizeBytes)
	for b.Loop() {
		if err := s.Scrub(context.Background(), func(ScrubProgress) {}); err != nil {
			b.Fatal(err)
		}
	}
}

func fillLarge(b *testing.B, s *Store) {
	b.Helper()
	value := bytes.Repeat([]byte("v"), 256)
	for i := range 100_000 {
		w := s.Write(Applied{Index: uint64(i + 1), Term: 1})
		if _, err := w.Put(&pb.PutRequest{Key: fmt.Appendf(nil, "key%06d", i), Value: value}); err != nil {
			b.Fatal(err)
		}
		w.Close()
		if i%1000 == 0 {
			s.Publish()
		}
	}
	s.Publish()
	if err := s.Flush(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkColdGet is a read from the file, with the check and without.
func BenchmarkColdGet(b *testing.B) {
	for _, checked := range []bool{false, true} {
		b.Run(fmt.Sprintf("checked=%t", checked), func(b *testing.B) {
			o := testOptions()
			o.TailBytes = 1
			s := openTest(b, o)
			fillLarge(b, s)
			s.disk.summed = checked
			r := &pb.RangeRequest{}
			i := 0
			for b.Loop() {
				i = (i + 7919) % 99_000
				r.Key = fmt.Appendf(r.Key[:0], "key%06d", i)
				if _, err := s.Range(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSumming is what the checksum of one record costs the flusher, in
// batches of 1000.
func BenchmarkSumming(b *testing.B) {
	s := openTest(b, testOptions())
	record := bytes.Repeat([]byte("r"), 300)
	var stats bolt.TxStats
	rev := Revision(10)
	for left := b.N; left > 0; left -= 1000 {
		err := s.disk.update(func(tx *bolt.Tx) error {
			w := newSumming(tx)
			for range min(left, 1000) {
				rev++
				at := stamp{main: rev}
				if err := w.add(at, at.appendKey(nil), record); err != nil {
					return err
				}
			}
			return w.end()
		}, &stats)
		if err != nil {
			b.Fatal(err)
		}
	}
}
