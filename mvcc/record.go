package mvcc

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/kvorum/kvorum/proto/mvccpb"
)

// A record is an encoded mvccpb.KeyValue with ascending field numbers and zero
// fields left out, so that all members hold the same bytes and equal hashes.
// A stored tombstone has only the key. Records are immutable.

// The tags of mvccpb.KeyValue.
const (
	tagKey     = 1<<3 | 2
	tagCreate  = 2<<3 | 0
	tagMod     = 3<<3 | 0
	tagVersion = 4<<3 | 0
	tagValue   = 5<<3 | 2
	tagLease   = 6<<3 | 0
)

func varintSize(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

func sizeBytes(b int) int {
	if b == 0 {
		return 0
	}
	return 1 + varintSize(uint64(b)) + b
}

func sizeInt(v int64) int {
	if v == 0 {
		return 0
	}
	return 1 + varintSize(uint64(v))
}

func appendInt(dst []byte, tag byte, v int64) []byte {
	if v == 0 {
		return dst
	}
	return binary.AppendUvarint(append(dst, tag), uint64(v))
}

func appendBytes[T ~string | ~[]byte](dst []byte, tag byte, b T) []byte {
	if len(b) == 0 {
		return dst
	}
	dst = binary.AppendUvarint(append(dst, tag), uint64(len(b)))
	return append(dst, b...)
}

// encodePut returns the record of the item's newest version with the value.
func encodePut(it *item, value []byte) []byte {
	n := sizeBytes(len(it.key)) + sizeInt(int64(it.create)) + sizeInt(int64(it.at.main)) +
		sizeInt(it.version) + sizeBytes(len(value)) + sizeInt(int64(it.lease))
	b := make([]byte, 0, n)
	b = appendBytes(b, tagKey, it.key)
	b = appendInt(b, tagCreate, int64(it.create))
	b = appendInt(b, tagMod, int64(it.at.main))
	b = appendInt(b, tagVersion, it.version)
	b = appendBytes(b, tagValue, value)
	return appendInt(b, tagLease, int64(it.lease))
}

// encodeTombstone returns the stored record of a deletion, and the form that
// watchers get, which has the revision too. Both share their bytes.
func encodeTombstone(key string, main Revision) (stored, told []byte) {
	b := make([]byte, 0, sizeBytes(len(key))+sizeInt(int64(main)))
	b = appendBytes(b, tagKey, key)
	n := len(b)
	b = appendInt(b, tagMod, int64(main))
	return b[:n:n], b
}

// toldTombstone returns the form of a stored tombstone that watchers get.
func toldTombstone(stored []byte, main Revision) []byte {
	b := make([]byte, 0, len(stored)+sizeInt(int64(main)))
	return appendInt(append(b, stored...), tagMod, int64(main))
}

// recordHead is what the index needs of a record.
type recordHead struct {
	key     []byte // aliases the record
	create  Revision
	mod     Revision
	version int64
	lease   LeaseID
}

// decodeHead reads a record without its value. It accepts any order of fields
// and ignores unknown ones, as protobuf does.
func decodeHead(b []byte) (h recordHead, err error) {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return h, fmt.Errorf("%w: record: bad tag", ErrCorrupt)
		}
		b = b[n:]
		var v uint64
		var field []byte
		switch tag & 7 {
		case 0:
			if v, n = binary.Uvarint(b); n <= 0 {
				return h, fmt.Errorf("%w: record: bad varint", ErrCorrupt)
			}
			b = b[n:]
		case 2:
			size, n := binary.Uvarint(b)
			if n <= 0 || size > uint64(len(b)-n) {
				return h, fmt.Errorf("%w: record: bad length", ErrCorrupt)
			}
			field = b[n : n+int(size) : n+int(size)]
			b = b[n+int(size):]
		default:
			return h, fmt.Errorf("%w: record: unknown wire type in tag %d", ErrCorrupt, tag)
		}
		h.set(tag, v, field)
	}
	return h, nil
}

func (h *recordHead) set(tag, v uint64, field []byte) {
	switch tag {
	case tagKey:
		h.key = field
	case tagCreate:
		h.create = Revision(v)
	case tagMod:
		h.mod = Revision(v)
	case tagVersion:
		h.version = int64(v)
	case tagLease:
		h.lease = LeaseID(v)
	}
}

// decodeRecord fills kv, whose key and value then alias the record.
func decodeRecord(b []byte, kv *mvccpb.KeyValue) error {
	if err := kv.UnmarshalVTUnsafe(b); err != nil {
		return fmt.Errorf("%w: record: %w", ErrCorrupt, err)
	}
	return nil
}
