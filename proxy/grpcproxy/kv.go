package grpcproxy

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// orderAttemptsMax is how many members are asked before a serializable read that
// would go back in time becomes a linearizable one.
const orderAttemptsMax = 5

// kvService serves etcdserverpb.KV.
type kvService struct {
	pb.UnimplementedKVServer
	*Proxy
}

// Range answers serializable reads from the cache if it can.
func (s kvService) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	s.ns.rangeRequest(r)
	if !r.Serializable {
		return s.read(ctx, r)
	}
	known, question := s.cache.get(callerOf(ctx), r)
	if known != nil {
		if !s.cfg.OrderedReads || known.Header.GetRevision() >= s.seen.Load() {
			return known, nil
		}
		return s.readInOrder(ctx, r)
	}
	response, err := s.readInOrder(ctx, r)
	if err != nil {
		s.cache.drop(question)
		return nil, err
	}
	s.cache.put(question, response)
	return response, nil
}

func (s kvService) read(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	response, err := s.client.KV.Range(outgoing(ctx), r, callOptions()...)
	if err != nil {
		return nil, err
	}
	s.note(response.Header)
	s.ns.strip(response.Kvs...)
	return response, nil
}

// readInOrder is a serializable read; if the flags ask for order, one that never
// shows an older state than this proxy has shown.
func (s kvService) readInOrder(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	if !s.cfg.OrderedReads {
		return s.read(ctx, r)
	}
	atLeast := s.seen.Load()
	for range orderAttemptsMax {
		response, err := s.read(ctx, r)
		if err != nil || response.Header.GetRevision() >= atLeast {
			return response, err
		}
	}
	again := proto.Clone(r).(*pb.RangeRequest)
	again.Serializable = false
	return s.read(ctx, again)
}

// RangeStream forwards the chunks of a long read.
func (s kvService) RangeStream(r *pb.RangeRequest, stream grpc.ServerStreamingServer[pb.RangeStreamResponse]) error {
	s.ns.rangeRequest(r)
	up, err := s.client.KV.RangeStream(outgoing(stream.Context()), r, callOptions()...)
	if err != nil {
		return err
	}
	for {
		chunk, err := up.Recv()
		if err != nil {
			return endOf(err)
		}
		if part := chunk.RangeResponse; part != nil {
			s.note(part.Header)
			s.ns.strip(part.Kvs...)
		}
		if err := stream.Send(chunk); err != nil {
			return err
		}
	}
}

// Put writes, and forgets what was read of the key, also when it is not known
// whether the write was done.
func (s kvService) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	s.ns.put(r)
	response, err := s.client.KV.Put(outgoing(ctx), r, callOptions()...)
	s.cache.forget(span{key: r.Key})
	if err != nil {
		return nil, err
	}
	s.note(response.Header)
	s.ns.strip(response.PrevKv)
	return response, nil
}

// DeleteRange deletes, and forgets what was read of the keys.
func (s kvService) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	s.ns.deleteRange(r)
	response, err := s.client.KV.DeleteRange(outgoing(ctx), r, callOptions()...)
	s.cache.forget(span{r.Key, r.RangeEnd})
	if err != nil {
		return nil, err
	}
	s.note(response.Header)
	s.ns.strip(response.PrevKvs...)
	return response, nil
}

// Txn runs a transaction, and forgets what was read of the keys that either
// branch writes.
func (s kvService) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	s.ns.txn(r)
	response, err := s.client.KV.Txn(outgoing(ctx), r, callOptions()...)
	s.cache.forget(writes(r)...)
	if err != nil {
		return nil, err
	}
	s.note(response.Header)
	s.ns.stripTxn(response)
	return response, nil
}

// Compact forgets what was read at revisions that are gone.
func (s kvService) Compact(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	response, err := s.client.KV.Compact(outgoing(ctx), r, callOptions()...)
	if err != nil {
		return nil, err
	}
	s.cache.compact(r.Revision)
	s.note(response.Header)
	return response, nil
}
