package grpcproxy

import (
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/internal/nesting"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// frame is a message that is forwarded as it is. It may be sent once.
type frame struct{ data mem.BufferSlice }

// codec is the "proto" content type, with frames beside messages.
type codec struct{}

// vtMessage is what the generated code of proto/ offers.
type vtMessage interface {
	MarshalVT() ([]byte, error)
	UnmarshalVTUnsafe([]byte) error
}

// Name is the content subtype of ordinary gRPC clients.
func (codec) Name() string { return "proto" }

// Marshal encodes v.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	var b []byte
	var err error
	switch m := v.(type) {
	case *frame:
		return m.data, nil
	case vtMessage:
		b, err = m.MarshalVT()
	case proto.Message:
		b, err = proto.Marshal(m)
	default:
		return nil, fmt.Errorf("encode message: %T is not a protobuf message", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, err
}

// Unmarshal decodes data into v, which aliases a copy that nobody else has.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch m := v.(type) {
	case *frame:
		data.Ref()
		m.data = data
		return nil
	case vtMessage:
		b := data.Materialize()
		if txn, nests := v.(*pb.TxnRequest); nests && !nesting.IsShallow(b) {
			return proto.Unmarshal(b, txn)
		}
		return m.UnmarshalVTUnsafe(b)
	case proto.Message:
		return proto.Unmarshal(data.Materialize(), m)
	}
	return fmt.Errorf("decode message: %T is not a protobuf message", v)
}
