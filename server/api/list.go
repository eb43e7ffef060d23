package api

import (
	"context"
	"encoding/binary"
	"runtime"
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
	if mayBeLarge(r) {
		if err := k.limits.Unsent.begin(ctx); err != nil {
			return nil, k.errors.Status(err)
		}
		defer k.limits.Unsent.end()
	}
	began := time.Now()
	a := &listAnswer{}
	list, ok, err := k.store.RangeEncoded(r, a)
	if !ok {
		response, err := k.rangeCounted(ctx, r)
		if err != nil {
			return nil, k.errors.Status(err)
		}
		response.Header = k.own(response.Header)
		return response, nil
	}
	if k.ranged != nil {
		k.ranged(time.Since(began), err)
	}
	if err != nil {
		return nil, k.errors.Status(err)
	}
	a.list, a.header = list, k.own(&pb.ResponseHeader{Revision: int64(list.Revision)})
	a.hold(ctx, k.limits.Unsent)
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

// pooledBytesMax is the largest buffer that is kept for reuse: the pool would
// hold larger ones, of any size, for as long as two collections take.
const pooledBytesMax = 1 << 20

// listAnswer is an encoded RangeResponse. It is used once.
type listAnswer struct {
	header *pb.ResponseHeader
	list   *mvcc.EncodedRange
	pooled []*[]byte // the buffers of list.Kvs

	// Of a large one; nil otherwise.
	unsent  *Unsent
	release func() // ends the count of what is not encoded yet
}

// hold counts a large answer until it is encoded or the request is over.
func (a *listAnswer) hold(ctx context.Context, u *Unsent) {
	size := a.size()
	if u == nil || size < largeAnswerBytes {
		return
	}
	a.unsent, a.release = u, u.Hold(size)
	context.AfterFunc(ctx, a.release)
}

func (a *listAnswer) size() (bytes int) {
	for _, kvs := range a.list.Kvs {
		bytes += len(kvs)
	}
	return bytes
}

// Buffer implements mvcc.BufferSource.
func (a *listAnswer) Buffer(size int) []byte {
	if mem.IsBelowBufferPoolingThreshold(size) {
		b := make([]byte, 0, size)
		a.pooled = append(a.pooled, nil)
		return b
	}
	var b *[]byte
	if size > pooledBytesMax {
		fresh := make([]byte, size)
		b = &fresh
	} else {
		b = mem.DefaultBufferPool().Get(size)
	}
	a.pooled = append(a.pooled, b)
	return (*b)[:0:size]
}

// Reset implements mvcc.BufferSource.
func (a *listAnswer) Reset() {
	for _, b := range a.pooled {
		if b != nil && cap(*b) <= pooledBytesMax {
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
	if a.unsent != nil {
		defer a.release() // counted by buffer from here on
	}
	for i, kvs := range a.list.Kvs {
		if b := a.pooled[i]; b != nil {
			*b = (*b)[:len(kvs)] // with its whole capacity, by which the pool sorts it
			out = append(out, mem.NewBuffer(b, a.poolOf(b)))
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

// poolOf is where a buffer goes when gRPC has sent it.
func (a *listAnswer) poolOf(b *[]byte) mem.BufferPool {
	if a.unsent == nil {
		return mem.DefaultBufferPool()
	}
	held := &heldBuffer{release: a.unsent.hold(len(*b))}
	held.forgotten = runtime.AddCleanup(b, func(release func()) { release() }, held.release) // should gRPC not give it back
	return held
}

// heldBuffer is the pool of one buffer that is counted until it is sent.
type heldBuffer struct {
	release   func()
	forgotten runtime.Cleanup
}

// Get implements mem.BufferPool; nobody gets from here.
func (*heldBuffer) Get(length int) *[]byte { return mem.DefaultBufferPool().Get(length) }

// Put implements mem.BufferPool.
func (h *heldBuffer) Put(b *[]byte) {
	h.forgotten.Stop()
	h.release()
	if cap(*b) <= pooledBytesMax {
		mem.DefaultBufferPool().Put(b)
	}
}

// GetHeader is that of a RangeResponse.
func (a *listAnswer) GetHeader() *pb.ResponseHeader { return a.header }

// GetCount is that of a RangeResponse.
func (a *listAnswer) GetCount() int64 { return a.list.Count }

// SizeVT is the size of the message on the wire.
func (a *listAnswer) SizeVT() int {
	size := a.header.SizeVT()
	size += 1 + sizeUvarint(size) + a.size()
	if a.list.More {
		size += 2
	}
	if a.list.Count != 0 {
		size += 1 + sizeUvarint(int(a.list.Count))
	}
	return size
}

func sizeUvarint(n int) int {
	return len(binary.AppendUvarint(make([]byte, 0, binary.MaxVarintLen64), uint64(n)))
} //nolint:gosec // not negative
