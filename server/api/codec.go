package api

import (
	"fmt"
	"sync/atomic"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/internal/nesting"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// Codec is the gRPC codec of the server. It is the "proto" content type, with
// the generated vtproto code where a message has it: requests are decoded to
// alias one private copy of the received bytes, and answers are encoded once
// into a pooled buffer.
type Codec struct {
	Traffic *Traffic // nil: not counted
	Unsent  *Unsent  // nil: not counted
}

// Traffic counts the bytes of messages.
type Traffic struct {
	Sent, Received atomic.Int64
}

// vtMessage is what the generated code of proto/ offers.
type vtMessage interface {
	SizeVT() int
	MarshalToSizedBufferVT([]byte) (int, error)
	UnmarshalVTUnsafe([]byte) error
}

// encoded is a message that brings its own bytes, such as a watch answer that
// shares its events with other watchers.
type encoded interface {
	buffers() mem.BufferSlice
}

// Name is the content subtype of ordinary gRPC clients.
func (Codec) Name() string { return "proto" }

// Marshal encodes v. The buffers go back to their pool when gRPC has sent them.
func (c Codec) Marshal(v any) (mem.BufferSlice, error) {
	data, err := c.encode(v)
	if err == nil && c.Traffic != nil {
		c.Traffic.Sent.Add(int64(data.Len()))
	}
	return data, err
}

func (c Codec) encode(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case encoded:
		return m.buffers(), nil
	case vtMessage:
		size := m.SizeVT()
		if c.Unsent != nil && size >= largeAnswerBytes {
			defer c.Unsent.encoded(v)
			return c.Unsent.marshal(size, m.MarshalToSizedBufferVT)
		}
		return marshalPooled(size, m.MarshalToSizedBufferVT)
	case proto.Message:
		b, err := proto.Marshal(m)
		return mem.BufferSlice{mem.SliceBuffer(b)}, err
	}
	return nil, fmt.Errorf("encode message: %T is not a protobuf message", v)
}

func marshalPooled(size int, write func([]byte) (int, error)) (mem.BufferSlice, error) {
	if mem.IsBelowBufferPoolingThreshold(size) {
		b := make([]byte, size)
		_, err := write(b)
		return mem.BufferSlice{mem.SliceBuffer(b)}, err
	}
	pool := mem.DefaultBufferPool()
	b := pool.Get(size)
	if _, err := write((*b)[:size]); err != nil {
		pool.Put(b)
		return nil, err
	}
	return mem.BufferSlice{mem.NewBuffer(b, pool)}, nil
}

// Unmarshal decodes data into v. What v then holds aliases a copy that nobody
// else has, so it may be kept as long as needed.
func (c Codec) Unmarshal(data mem.BufferSlice, v any) error {
	if c.Traffic != nil {
		c.Traffic.Received.Add(int64(data.Len()))
	}
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("decode message: %T is not a protobuf message", v)
	}
	if hot, ok := generated(m); ok {
		if b := data.Materialize(); isShallow(m, b) && hot.UnmarshalVTUnsafe(b) == nil {
			return nil
		}
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	// A known field of another type would be kept as an unknown one, and what is proposed is decoded by the generated
	// code, which does not have it.
	return proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(buf.ReadOnlyData(), m) // resets m first
}

// isShallow is false for transactions that the generated code, which has no
// bound, is not given to decode.
func isShallow(m proto.Message, b []byte) bool {
	_, nests := m.(*pb.TxnRequest)
	return !nests || nesting.IsShallow(b)
}

// generated tells whether the generated code decodes a request, as it does the frequent ones. It does not check that
// strings are UTF-8, so a request that has a string is not for it; and what it refuses goes to the protobuf library,
// which ignores a known field of another type and whose texts clients know.
func generated(m proto.Message) (hot vtMessage, ok bool) {
	switch m.(type) {
	case *pb.RangeRequest, *pb.PutRequest, *pb.DeleteRangeRequest, *pb.TxnRequest, *pb.CompactionRequest,
		*pb.WatchRequest, *pb.LeaseGrantRequest, *pb.LeaseRevokeRequest, *pb.LeaseKeepAliveRequest,
		*pb.LeaseTimeToLiveRequest, *pb.LeaseLeasesRequest:
		hot, ok = m.(vtMessage)
	}
	return hot, ok
}
