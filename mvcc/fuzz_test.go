package mvcc

import (
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// FuzzParseStamp: if it fails, a damaged bucket key crashes the member or is
// taken for another revision.
func FuzzParseStamp(f *testing.F) {
	f.Add(stamp{main: 5, sub: 3}.appendKey(nil))
	f.Add(stamp{main: 1 << 40, tomb: true}.appendKey(nil))
	f.Add([]byte("short"))
	f.Fuzz(func(t *testing.T, k []byte) {
		at, err := parseStamp(k)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%x: %v", k, err)
			}
			return
		}
		if got := at.appendKey(nil); !bytes.Equal(got, k) {
			t.Fatalf("%x is read as %+v, which is %x", k, at, got)
		}
	})
}

// FuzzDecodeHead: if it fails, the index is rebuilt with a key, revision or
// lease other than the record's.
func FuzzDecodeHead(f *testing.F) {
	it := &item{key: "key", at: stamp{main: 9}, create: 3, version: 4, lease: -1}
	f.Add(encodePut(it, []byte("value")))
	f.Add([]byte{})
	f.Add([]byte{tagKey, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHead(b)
		var kv mvccpb.KeyValue
		if kvErr := kv.UnmarshalVT(b); err != nil || kvErr != nil {
			return // protobuf has wire types and checks that records never use
		}
		want := recordHead{key: kv.Key, create: Revision(kv.CreateRevision), mod: Revision(kv.ModRevision), version: kv.Version, lease: LeaseID(kv.Lease)}
		if !bytes.Equal(h.key, want.key) || h.create != want.create || h.mod != want.mod || h.version != want.version || h.lease != want.lease {
			t.Fatalf("%x: %+v, want %+v", b, h, want)
		}
	})
}

// FuzzEncodePut: if it fails, members hold different bytes for the same key
// and their hashes differ from etcd's.
func FuzzEncodePut(f *testing.F) {
	f.Add("key", []byte("value"), int64(3), int64(9), int64(2), int64(0))
	f.Add("", []byte{}, int64(-1), int64(0), int64(1<<62), int64(-5))
	f.Fuzz(func(t *testing.T, key string, value []byte, create, mod, version, lease int64) {
		it := &item{key: key, at: stamp{main: Revision(mod)}, create: Revision(create), version: version, lease: LeaseID(lease)}
		want, err := (&mvccpb.KeyValue{Key: []byte(key), Value: value, CreateRevision: create, ModRevision: mod, Version: version, Lease: lease}).MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		if got := encodePut(it, value); !bytes.Equal(got, want) || cap(got) != len(got) {
			t.Fatalf("got %x (capacity %d), want %x", got, cap(got), want)
		}
	})
}

// soundFile returns a small closed database file.
func soundFile(t testing.TB) []byte {
	path := filepath.Join(t.TempDir(), "db")
	s, err := Open(path, testOptions())
	if err != nil {
		t.Fatal(err)
	}
	fill(t, s, 300)
	w := s.Write(s.Applied())
	if _, err := w.DeleteRange(&pb.DeleteRangeRequest{Key: benchKey(10), RangeEnd: benchKey(20)}); err != nil {
		t.Fatal(err)
	}
	w.Set(BucketMeta, []byte(metaVersion), []byte("3.7.0"))
	w.Close()
	s.Publish()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// examineDamaged must come back, whatever the file holds.
func examineDamaged(t testing.TB, path string, data []byte) (Report, error) {
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	_, statusErr := SnapshotStatus(path)
	r, err := Check(path)
	if err != nil && !errors.Is(err, ErrCorrupt) {
		t.Logf("check: %v", err)
	}
	if statusErr == nil && err != nil {
		t.Fatalf("status reads what check cannot: %v", err)
	}
	return r, err
}

// FuzzCheckDamaged: if it fails, looking at a damaged snapshot kills the tool
// that should tell what is wrong with it.
func FuzzCheckDamaged(f *testing.F) {
	data := soundFile(f)
	f.Add(uint32(0), []byte{0xff}, uint32(1<<31))
	f.Add(uint32(4096*3+16), []byte{0xff, 0xff, 0xff, 0xff}, uint32(1<<31))
	f.Add(uint32(20), []byte{}, uint32(9000))
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, size uint32) {
		damaged := bytes.Clone(data)
		if int(at) < len(damaged) {
			copy(damaged[at:], patch)
		}
		examineDamaged(t, filepath.Join(t.TempDir(), "db"), damaged[:min(int(size), len(damaged))])
	})
}

// TestCheckDamaged is FuzzCheckDamaged over many random damages.
func TestCheckDamaged(t *testing.T) {
	r := rand.New(rand.NewPCG(seedOf(t), 4))
	data := soundFile(t)
	path := filepath.Join(t.TempDir(), "db")
	if rep, err := examineDamaged(t, path, data); err != nil || len(rep.Problems) != 0 || rep.Keys != 290 {
		t.Fatalf("sound file: %+v, %v", rep, err)
	}
	found := 0
	for range 500 {
		damaged := bytes.Clone(data)
		for range 1 + r.IntN(20) {
			at := r.IntN(len(damaged))
			if r.IntN(2) == 0 { // headers are where it hurts
				at = at/4096*4096 + r.IntN(64)
			}
			damaged[at] = byte(r.Uint32())
		}
		if r.IntN(4) == 0 {
			damaged = damaged[:r.IntN(len(damaged))]
		}
		if rep, err := examineDamaged(t, path, damaged); err != nil || len(rep.Problems) > 0 {
			found++
		}
	}
	if found < 100 {
		t.Fatalf("only %d of 500 damages were noticed", found)
	}
}

// TestFileFormat: if it fails, etcd cannot read what Kvorum wrote.
func TestFileFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s, err := Open(path, testOptions())
	if err != nil {
		t.Fatal(err)
	}
	w := s.Write(Applied{Index: 0x0102, Term: 3})
	if _, err := w.Txn(&pb.TxnRequest{Success: []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("a"), Value: []byte("1"), Lease: 1}}},
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("b")}}},
	}}, leaseExists); err != nil {
		t.Fatal(err)
	}
	w.Close()
	w = s.Write(Applied{Index: 0x0103, Term: 3})
	w.DeleteKeys([][]byte{[]byte("a")})
	if err := w.Compact(3); err != nil {
		t.Fatal(err)
	}
	w.Close()
	s.Publish()
	finishCompactions(t, s)
	want := map[string]string{
		"key/\x00\x00\x00\x00\x00\x00\x00\x02_\x00\x00\x00\x00\x00\x00\x00\x01":  "\x0a\x01b\x10\x02\x18\x02\x20\x01",
		"key/\x00\x00\x00\x00\x00\x00\x00\x03_\x00\x00\x00\x00\x00\x00\x00\x00t": "\x0a\x01a",
		"meta/consistent_index":    "\x00\x00\x00\x00\x00\x00\x01\x03",
		"meta/term":                "\x00\x00\x00\x00\x00\x00\x00\x03",
		"meta/scheduledCompactRev": "\x00\x00\x00\x00\x00\x00\x00\x03_\x00\x00\x00\x00\x00\x00\x00\x00",
		"meta/finishedCompactRev":  "\x00\x00\x00\x00\x00\x00\x00\x03_\x00\x00\x00\x00\x00\x00\x00\x00",
	}
	got, buckets := dumpFile(t, s)
	maps.DeleteFunc(got, func(k, _ string) bool { return strings.HasPrefix(k, string(bucketSums)) })
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%q is %q, want %q", k, got[k], v)
		}
	}
	if len(got) != len(want) || buckets != 11 {
		t.Errorf("%d pairs in %d buckets, want %d in 10 and one of checksums: %q", len(got), buckets, len(want), got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// If this fails, `kvctl check` needs memory for all keys of a large file, or
// finds less when it saves memory.
func TestCheckInSeveralPasses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(path, soundFile(t), 0o600); err != nil {
		t.Fatal(err)
	}
	at, err := Check(path)
	if err != nil || len(at.Problems) > 0 {
		t.Fatalf("sound file: %+v, %v", at, err)
	}
	if in, err := check(path, 7); err != nil || !reflect.DeepEqual(in, at) {
		t.Fatalf("in passes of 7 records: %+v, %v; at once: %+v", in, err, at)
	}
}
