package mvcc

import (
	"errors"
	"testing"

	"github.com/kvorum/kvorum/proto/mvccpb"
)

// FuzzDecodeRecord: if it fails, a damaged record crashes whoever reads its key.
func FuzzDecodeRecord(f *testing.F) {
	f.Add(encodePut(&item{key: "key", at: stamp{main: 9}, create: 3, version: 4}, []byte("value")))
	f.Add([]byte{tagKey, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := decodeRecord(b, &mvccpb.KeyValue{}); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
	})
}
