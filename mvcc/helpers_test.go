package mvcc

import (
	"strings"
	"testing"

	"github.com/kvorum/kvorum/proto/mvccpb"
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
