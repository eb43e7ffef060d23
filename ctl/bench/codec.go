package bench

import (
	"fmt"

	"google.golang.org/grpc/mem"
)

// codec carries requests as generated messages and answers as whatever scans them.
type codec struct{}

// request is a generated message.
type request interface {
	SizeVT() int
	MarshalToSizedBufferVT([]byte) (int, error)
}

// scanner reads an answer in place; the bytes are not its own after scan returns.
type scanner interface {
	scan(data []byte) error
}

// message is a generated message that copies what it keeps.
type message interface {
	UnmarshalVT([]byte) error
}

// Name is the content subtype that servers expect.
func (codec) Name() string { return "proto" }

// Marshal encodes a request into a pooled buffer.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	r, ok := v.(request)
	if !ok {
		return nil, fmt.Errorf("encode %T: not a generated message", v)
	}
	pool := mem.DefaultBufferPool()
	buffer := pool.Get(r.SizeVT())
	if _, err := r.MarshalToSizedBufferVT(*buffer); err != nil {
		pool.Put(buffer)
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return mem.BufferSlice{mem.NewBuffer(buffer, pool)}, nil
}

// Unmarshal hands the answer's bytes to its reader.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	switch v := v.(type) {
	case scanner:
		return v.scan(buffer.ReadOnlyData())
	case message:
		return v.UnmarshalVT(buffer.ReadOnlyData())
	}
	return fmt.Errorf("decode %T: not a known answer", v)
}
