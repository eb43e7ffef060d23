package wal

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"google.golang.org/protobuf/encoding/protowire"
)

// kind is the type of a record; the numbers are the file format's.
type kind int64

const (
	kindMetadata kind = 1
	kindEntry    kind = 2
	kindState    kind = 3
	kindCRC      kind = 4
	kindSnapshot kind = 5
)

// frameBytes is the length field before each record.
const frameBytes = 8

// record is one decoded record. data aliases the reader's buffer.
type record struct {
	kind kind
	crc  uint32
	data []byte
}

var errRecord = errors.New("record cannot be parsed")

// castagnoli is the table of CRC-32C, which package crc32 keeps and recognises,
// to use the processor's instruction for it.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// appendRecord frames data, which it takes in two parts so that an entry's
// payload is copied once. crc is the running checksum after both parts.
func appendRecord(buf []byte, k kind, crc uint32, head, body []byte) []byte {
	dataBytes := len(head) + len(body)
	n := 1 + protowire.SizeVarint(uint64(k)) + 1 + protowire.SizeVarint(uint64(crc))
	if k != kindCRC {
		n += 1 + protowire.SizeBytes(dataBytes)
	}
	pad := -n & 7
	buf = binary.LittleEndian.AppendUint64(buf, joinLength(n, pad))
	buf = append(buf, 1<<3|byte(protowire.VarintType))
	buf = protowire.AppendVarint(buf, uint64(k))
	buf = append(buf, 2<<3|byte(protowire.VarintType))
	buf = protowire.AppendVarint(buf, uint64(crc))
	if k != kindCRC {
		buf = append(buf, 3<<3|byte(protowire.BytesType))
		buf = protowire.AppendVarint(buf, uint64(dataBytes))
		buf = append(buf, head...)
		buf = append(buf, body...)
	}
	return append(buf, make([]byte, 7)[:pad]...)
}

// joinLength makes the length field of a record of n bytes and pad zeros.
func joinLength(n, pad int) uint64 {
	if pad == 0 {
		return uint64(n)
	}
	return uint64(n) | uint64(0x80|pad)<<56
}

// splitLength takes a length field apart. It is not ok when no writer makes
// such a field; a torn write cannot make one either, because a length field
// never straddles two sectors.
func splitLength(field uint64) (n, pad int64, ok bool) {
	n = int64(field & (1<<56 - 1))
	top := field >> 56
	if top != 0 {
		pad = int64(top & 7)
		ok = top&^7 == 0x80 && pad != 0
	} else {
		ok = true
	}
	return n, pad, ok && n > 0 && (n+pad)%8 == 0
}

// decodeRecord parses the protobuf of a record. Unknown fields are skipped.
func decodeRecord(b []byte) (record, error) {
	var r record
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return record{}, errRecord
		}
		b = b[n:]
		switch {
		case num == 1 && typ == protowire.VarintType:
			var v uint64
			v, n = protowire.ConsumeVarint(b)
			r.kind = kind(v)
		case num == 2 && typ == protowire.VarintType:
			var v uint64
			v, n = protowire.ConsumeVarint(b)
			r.crc = uint32(v)
		case num == 3 && typ == protowire.BytesType:
			r.data, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return record{}, errRecord
		}
		b = b[n:]
	}
	return r, nil
}

// innerLength is the record length that the first bytes of the record
// themselves tell. ok is false when they are not a whole header as this format
// writes it.
func innerLength(b []byte) (n int64, headBytes int, ok bool) {
	at, noData := 0, false
	for want := byte(1); want <= 3; want++ {
		typ := byte(protowire.VarintType)
		if want == 3 {
			typ = byte(protowire.BytesType)
		}
		if at >= len(b) || b[at] != want<<3|typ {
			return 0, 0, false
		}
		v, used := protowire.ConsumeVarint(b[at+1:])
		if used < 0 {
			return 0, 0, false
		}
		at += 1 + used
		switch {
		case want == 1 && kind(v) == kindCRC:
			noData = true
		case want == 2 && noData:
			return int64(at), at, true
		case want == 3:
			return int64(at) + int64(v), at, v < 1<<56
		}
	}
	return 0, 0, false
}

// appendPlain frames data and returns the new running checksum.
func appendPlain(buf []byte, crc uint32, k kind, data []byte) ([]byte, uint32) {
	crc = crc32.Update(crc, castagnoli(), data)
	return appendRecord(buf, k, crc, data, nil), crc
}
