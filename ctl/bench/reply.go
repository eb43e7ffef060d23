package bench

import (
	"encoding/binary"
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
)

var errBadReply = errors.New("the server's answer is not valid protobuf")

// reply counts what a Range, Put or Txn answer holds without building it.
type reply struct {
	items int // Range: key-value pairs; Txn: operation answers
	bytes int
}

// scan reads the top-level fields only.
func (r *reply) scan(data []byte) error {
	r.items, r.bytes = 0, len(data)
	return fields(data, func(number protowire.Number, value []byte, _ uint64) error {
		// RangeResponse.kvs is field 2; TxnResponse.responses is field 3 of bytes, where RangeResponse has a bool.
		if value != nil && (number == 2 || number == 3) {
			r.items++
		}
		return nil
	})
}

// keepAliveReply is a LeaseKeepAliveResponse.
type keepAliveReply struct{ ttl int64 }

func (r *keepAliveReply) scan(data []byte) error {
	r.ttl = 0
	return fields(data, func(number protowire.Number, _ []byte, n uint64) error {
		if number == 3 {
			r.ttl = int64(n)
		}
		return nil
	})
}

// watchReply is a WatchResponse; event is called with the value of every event in it.
type watchReply struct {
	created, canceled bool
	reason            string
	event             func(value []byte)
}

func (r *watchReply) scan(data []byte) error {
	r.created, r.canceled, r.reason = false, false, ""
	return fields(data, func(number protowire.Number, value []byte, n uint64) error {
		switch number {
		case 3:
			r.created = n != 0
		case 4:
			r.canceled = n != 0
		case 6:
			r.reason = string(value)
		case 11:
			return r.scanEvent(value)
		}
		return nil
	})
}

// scanEvent finds Event.kv (2) and in it KeyValue.value (5).
func (r *watchReply) scanEvent(data []byte) error {
	var value []byte
	err := fields(data, func(number protowire.Number, kv []byte, _ uint64) error {
		if number != 2 {
			return nil
		}
		return fields(kv, func(number protowire.Number, v []byte, _ uint64) error {
			if number == 5 {
				value = v
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	r.event(value)
	return nil
}

// fields calls visit for each field of a message: value for bytes (never nil), n for varints.
func fields(data []byte, visit func(number protowire.Number, value []byte, n uint64) error) error {
	for len(data) > 0 {
		number, kind, size := protowire.ConsumeTag(data)
		if size < 0 {
			return errBadReply
		}
		data = data[size:]
		var value []byte
		var n uint64
		switch kind {
		case protowire.BytesType:
			value, size = protowire.ConsumeBytes(data)
			if size > 0 && value == nil {
				value = []byte{}
			}
		case protowire.VarintType:
			n, size = protowire.ConsumeVarint(data)
		default:
			size = protowire.ConsumeFieldValue(number, kind, data)
		}
		if size < 0 {
			return errBadReply
		}
		if err := visit(number, value, n); err != nil {
			return err
		}
		data = data[size:]
	}
	return nil
}

// stampSize is how many bytes of a watched value carry the time at which its put was due.
const stampSize = 8

// stamp writes a time, in nanoseconds since the load began, into a value.
func stamp(value []byte, at int64) { binary.LittleEndian.PutUint64(value, uint64(at)) }

// stamped reads it back; false when the value is not one of ours.
func stamped(value []byte) (int64, bool) {
	if len(value) < stampSize {
		return 0, false
	}
	return int64(binary.LittleEndian.Uint64(value)), true
}
