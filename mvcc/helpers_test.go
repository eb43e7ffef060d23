package mvcc

import (
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/proto/mvccpb"
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
