package api

import (
	"context"
	"encoding/binary"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// A list is answered with the bytes of the stored records, put one after the
// other into pooled buffers: see mvcc.Store.RangeEncoded. The generated
// service wants a *RangeResponse, so the method's handler is one of our own.

// kvService is the generated description of the KV service with that handler.
func kvService() *grpc.ServiceDesc {
	d := pb.KV_ServiceDesc
	d.Methods = slices.Clone(d.Methods)
	for i := range d.Methods {
		if d.Methods[i].MethodName == "Range" {
			d.Methods[i].Handler = handleRange
		}
	}
	return &d
}

// handleRange does what the generated handler does, but for the type of the answer.
func handleRange(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
	r := &pb.RangeRequest{}
	if err := decode(r); err != nil {
		return nil, err
	}
	k := srv.(KV) //nolint:forcetypeassert // it is what Register has registered
	if interceptor == nil {
		return k.rangeOrList(ctx, r)
	}
	info := &grpc.UnaryServerInfo{Server: srv, FullMethod: pb.KV_Range_FullMethodName}
	return interceptor(ctx, r, info, func(ctx context.Context, r any) (any, error) {
		return k.rangeOrList(ctx, r.(*pb.RangeRequest)) //nolint:forcetypeassert // it is the one that was decoded
	})
}

// rangeOrList answers with a *listAnswer where it can, and else with a *RangeResponse.
func (k KV) rangeOrList(ctx context.Context, r *pb.RangeRequest) (any, error) {
	if len(r.RangeEnd) == 0 {
		return answerOf(k.Range(ctx, r))
	}
	if err := k.admitRead(ctx, r); err != nil {
		return nil, k.errors.Status(err)
	}
	began := time.Now()
	a := &listAnswer{}
	list, ok, err := k.store.RangeEncoded(r, a)
	if !ok {
		response, err := k.readStore(r)
		return answerOf(response, k.errors.Status(err))
	}
	if k.ranged != nil {
		k.ranged(time.Since(began), err)
	}
	if err != nil {
		return nil, k.errors.Status(err)
	}
	a.list, a.header = list, k.own(&pb.ResponseHeader{Revision: int64(list.Revision)})
	return a, nil
}

// answerOf keeps a nil answer from becoming a nil pointer in an interface.
func answerOf(r *pb.RangeResponse, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return r, nil
}

// The tags of etcdserverpb.RangeResponse around the keys.
const (
	rangeTagHeader = 1<<3 | 2
	rangeTagMore   = 3 << 3
	rangeTagCount  = 4 << 3
)

// listAnswer is an encoded RangeResponse. It is used once.
type listAnswer struct {
	header *pb.ResponseHeader
	list   *mvcc.EncodedRange
	pooled []*[]byte // the buffers of list.Kvs
}

// Buffer implements mvcc.BufferSource.
func (a *listAnswer) Buffer(size int) []byte {
	if mem.IsBelowBufferPoolingThreshold(size) {
		b := make([]byte, 0, size)
		a.pooled = append(a.pooled, nil)
		return b
	}
	b := mem.DefaultBufferPool().Get(size)
	a.pooled = append(a.pooled, b)
	return (*b)[:0:size]
}

// Reset implements mvcc.BufferSource.
func (a *listAnswer) Reset() {
	for _, b := range a.pooled {
		if b != nil {
			mem.DefaultBufferPool().Put(b)
		}
	}
	a.pooled = a.pooled[:0]
}

// buffers implements encoded.
func (a *listAnswer) buffers() mem.BufferSlice {
	size := a.header.SizeVT()
	head := binary.AppendUvarint(append(make([]byte, 0, size+16), rangeTagHeader), uint64(size))
	n := len(head)
	head = head[:n+size]
	_, _ = a.header.MarshalToSizedBufferVT(head[n:]) // fails only for a buffer that is too small
	out := append(make(mem.BufferSlice, 0, len(a.list.Kvs)+2), mem.SliceBuffer(head))
	for i, kvs := range a.list.Kvs {
		if b := a.pooled[i]; b != nil {
			*b = (*b)[:len(kvs)] // with its whole capacity, by which the pool sorts it
			out = append(out, mem.NewBuffer(b, mem.DefaultBufferPool()))
		} else {
			out = append(out, mem.SliceBuffer(kvs))
		}
	}
	var tail []byte
	if a.list.More {
		tail = append(tail, rangeTagMore, 1)
	}
	if a.list.Count != 0 {
		tail = binary.AppendUvarint(append(tail, rangeTagCount), uint64(a.list.Count)) //nolint:gosec // a count is not negative
	}
	if len(tail) > 0 {
		out = append(out, mem.SliceBuffer(tail))
	}
	return out
}
