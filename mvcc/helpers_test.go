package mvcc

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/proto/mvccpb"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

func decodeTest(t testing.TB, record []byte) *mvccpb.KeyValue {
	t.Helper()
	kv := &mvccpb.KeyValue{}
	if err := decodeRecord(record, kv); err != nil {
		t.Fatal(err)
	}
	return kv
}

func leaseProblem(p string) bool { return strings.Contains(p, "is attached to lease") }

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// dumpFile returns all pairs of the file and how many buckets it has.
func dumpFile(t testing.TB, s *Store) (pairs map[string]string, buckets int) {
	t.Helper()
	pairs = map[string]string{}
	err := s.disk.read(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			buckets++
			return b.ForEach(func(k, v []byte) error {
				pairs[string(name)+"/"+string(k)] = string(v)
				return nil
			})
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return pairs, buckets
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
