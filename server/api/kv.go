package api

import (
	"context"

	"google.golang.org/grpc"

	"github.com/kvorum/kvorum/internal/crash"
	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// KV serves etcdserverpb.KV.
type KV struct {
	pb.UnimplementedKVServer
	*Services
}

// Range reads at one revision. Unless the request is serializable it first
// waits for the read barrier.
func (k KV) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	response, err := k.read(ctx, r)
	return response, k.errors.Status(err)
}

func (k KV) read(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	if err := k.admitRead(ctx, r); err != nil {
		return nil, err
	}
	return k.readStore(ctx, r)
}

// admitRead checks the request, and waits for the read barrier unless it is
// serializable.
func (k KV) admitRead(ctx context.Context, r *pb.RangeRequest) error {
	if err := checkRange(r); err != nil {
		return err
	}
	if r.Serializable {
		return nil
	}
	return k.member.ReadBarrier(ctx)
}

func (k KV) readStore(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	response, err := k.rangeBounded(ctx, r)
	if err != nil {
		return nil, err
	}
	response.Header = k.own(response.Header)
	return response, nil
}

// Put writes one key.
func (k KV) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	if err := k.member.CheckQuota(putCost(r)); err != nil { // first, so that a full store says so, as etcd's does
		return nil, k.errors.Status(err)
	}
	if err := checkPut(r); err != nil {
		return nil, k.errors.Status(err)
	}
	if err := k.checkV2Put(r); err != nil {
		return nil, k.errors.Status(err)
	}
	response, err := propose[*pb.PutResponse](ctx, k.Services, &pb.InternalRaftRequest{Put: r})
	if err != nil {
		return nil, err
	}
	response.Header = k.own(response.Header)
	return response, nil
}

// DeleteRange deletes keys.
func (k KV) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	if err := checkDelete(r); err != nil {
		return nil, k.errors.Status(err)
	}
	if err := k.checkV2Delete(r); err != nil {
		return nil, k.errors.Status(err)
	}
	response, err := propose[*pb.DeleteRangeResponse](ctx, k.Services, &pb.InternalRaftRequest{DeleteRange: r})
	if err != nil {
		return nil, err
	}
	response.Header = k.own(response.Header)
	return response, nil
}

// Txn runs a transaction. One that can only read is answered from this
// member's store, after the read barrier unless all of it is serializable.
func (k KV) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	if cost := txnCost(r); cost > 0 {
		if err := k.member.CheckQuota(cost); err != nil {
			return nil, k.errors.Status(err)
		}
	}
	if err := checkTxn(r, k.limits.TxnOpsMax); err != nil {
		return nil, k.errors.Status(err)
	}
	response, err := k.runTxn(ctx, r)
	if err != nil {
		return nil, err
	}
	response.Header = k.own(response.Header)
	return response, nil
}

// OnlyReads tells whether a transaction can change nothing.
func OnlyReads(r *pb.TxnRequest) bool { return onlyReads(r) }

func (k KV) runTxn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	if k.limits.Unsent.full() && txnMayBeLarge(r) {
		return nil, k.errors.Status(ErrTooManyRequests)
	}
	if !onlyReads(r) {
		if err := k.checkV2Txn(r); err != nil {
			return nil, k.errors.Status(err)
		}
		return propose[*pb.TxnResponse](ctx, k.Services, &pb.InternalRaftRequest{Txn: r})
	}
	if !onlySerializable(r) {
		if err := k.member.ReadBarrier(ctx); err != nil {
			return nil, k.errors.Status(err)
		}
	}
	response, err := k.store.Txn(r)
	return response, k.errors.Status(err)
}

// Compact forgets old revisions. A physical one is answered when they are gone
// from the disk.
func (k KV) Compact(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	response, err := propose[*pb.CompactionResponse](ctx, k.Services, &pb.InternalRaftRequest{Compaction: r})
	if err != nil {
		return nil, err
	}
	if r.Physical {
		select {
		case <-k.store.CompactionDone(mvcc.Revision(r.Revision)):
		case <-k.member.Stopping():
			return nil, k.errors.Status(ErrStopped)
		case <-ctx.Done():
			return nil, k.errors.Status(ctx.Err())
		}
	}
	response.Header = k.own(response.Header)
	return response, nil
}

// The first chunk of a stream is small so that the reader can begin at once.
const streamChunkKeysFirst = 10

// RangeStream answers a Range in chunks that are all read at one revision. Only
// the last chunk carries header, more and count.
func (k KV) RangeStream(r *pb.RangeRequest, stream grpc.ServerStreamingServer[pb.RangeStreamResponse]) error {
	return k.errors.Status(k.rangeStream(r, stream))
}

func (k KV) rangeStream(r *pb.RangeRequest, stream grpc.ServerStreamingServer[pb.RangeStreamResponse]) error {
	if err := checkRangeStream(r); err != nil {
		return err
	}
	if !r.Serializable {
		if err := k.member.ReadBarrier(stream.Context()); err != nil {
			return err
		}
	}
	page := pageOf(r, streamChunkKeysFirst)
	var sent, total int64
	var header *pb.ResponseHeader
	for {
		chunk, err := k.rangeStore(page)
		if err != nil {
			return err
		}
		if header == nil {
			header, total = k.own(chunk.Header), chunk.Count
			if page.Revision <= 0 {
				page.Revision = header.Revision
			}
		}
		sent += int64(len(chunk.Kvs))
		chunk.Header, chunk.Count = nil, 0
		last := !chunk.More || (r.Limit > 0 && sent >= r.Limit)
		if last {
			chunk.Header, chunk.Count = header, total
		} else {
			chunk.More = false
		}
		crash.Here("beforeRangeStreamChunk")
		if err := stream.Send(&pb.RangeStreamResponse{RangeResponse: chunk}); err != nil || last {
			return err
		}
		k.nextPage(page, r, chunk, sent)
	}
}

// pageOf is the request for the first chunk of r.
func pageOf(r *pb.RangeRequest, keys int64) *pb.RangeRequest {
	return &pb.RangeRequest{
		Key: r.Key, RangeEnd: r.RangeEnd, Revision: r.Revision,
		KeysOnly: r.KeysOnly, CountOnly: r.CountOnly, Serializable: true,
		Limit: atMost(keys, r.Limit),
	}
}

// nextPage moves page behind the chunk and sizes it so that chunks come close
// to half the request limit.
func (k KV) nextPage(page, r *pb.RangeRequest, chunk *pb.RangeResponse, sent int64) {
	lastKey := chunk.Kvs[len(chunk.Kvs)-1].Key
	page.Key = append(append(make([]byte, 0, len(lastKey)+1), lastKey...), 0)
	keys, size := int64(len(chunk.Kvs)), chunk.SizeVT()
	switch {
	case size < k.limits.RequestBytesMax/2:
		keys *= 2
	case size > 2*k.limits.RequestBytesMax:
		keys = max(1, keys/2)
	}
	page.Limit = keys
	if r.Limit > 0 {
		page.Limit = atMost(keys, r.Limit-sent)
	}
}

// atMost is n, or limit where there is one and it is smaller.
func atMost(n, limit int64) int64 {
	if limit > 0 {
		return min(n, limit)
	}
	return n
}
