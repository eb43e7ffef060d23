package bench

import (
	"context"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// fakeServer answers the calls of the loads and remembers them. It stands in for the network's other end only.
type fakeServer struct {
	pb.UnimplementedKVServer
	pb.UnimplementedWatchServer
	pb.UnimplementedLeaseServer
	pb.UnimplementedMaintenanceServer
	pb.UnimplementedAuthServer

	mu       sync.Mutex
	values   map[string][]byte // guarded by mu
	puts     int               // guarded by mu: single puts
	ranges   []*pb.RangeRequest
	txns     []*pb.TxnRequest
	leases   map[int64]bool // guarded by mu
	renewals int            // guarded by mu
	tokens   map[string]bool
	refuse   int // every so many puts fail; 0 = none
	watches  []*fakeWatch
}

type fakeWatch struct {
	id     int64
	key    string
	mu     *sync.Mutex // of the stream
	stream pb.Watch_WatchServer
}

// startFake serves until the test ends and returns the address.
func startFake(t testing.TB) (*fakeServer, string) {
	t.Helper()
	f := &fakeServer{values: map[string][]byte{}, leases: map[int64]bool{}, tokens: map[string]bool{}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterKVServer(server, f)
	pb.RegisterWatchServer(server, f)
	pb.RegisterLeaseServer(server, f)
	pb.RegisterMaintenanceServer(server, f)
	pb.RegisterAuthServer(server, f)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return f, listener.Addr().String()
}

func (f *fakeServer) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	return &pb.StatusResponse{Header: &pb.ResponseHeader{}}, nil
}

func (f *fakeServer) Authenticate(_ context.Context, r *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	return &pb.AuthenticateResponse{Token: r.Name + "/" + r.Password}, nil
}

func (f *fakeServer) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.puts++
	for _, token := range metadata.ValueFromIncomingContext(ctx, "token") {
		f.tokens[token] = true
	}
	if f.refuse > 0 && f.puts%f.refuse == 0 {
		return nil, status.Error(codes.ResourceExhausted, "full <b>up</b>")
	}
	f.values[string(r.Key)] = r.Value
	for _, w := range f.watches {
		if w.key == string(r.Key) {
			event := &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: r.Key, Value: r.Value}}
			w.mu.Lock()
			err := w.stream.Send(&pb.WatchResponse{WatchId: w.id, Events: []*mvccpb.Event{event}})
			w.mu.Unlock()
			if err != nil {
				return nil, err
			}
		}
	}
	return &pb.PutResponse{Header: &pb.ResponseHeader{Revision: int64(f.puts)}}, nil
}

func (f *fakeServer) Range(_ context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ranges = append(f.ranges, r)
	answer := &pb.RangeResponse{Header: &pb.ResponseHeader{}}
	for key, value := range f.values {
		if key == string(r.Key) || (len(r.RangeEnd) > 0 && key >= string(r.Key) && key < string(r.RangeEnd)) {
			answer.Count++
			if !r.CountOnly && (r.Limit == 0 || int64(len(answer.Kvs)) < r.Limit) {
				answer.Kvs = append(answer.Kvs, &mvccpb.KeyValue{Key: []byte(key), Value: value})
			}
		}
	}
	return answer, nil
}

func (f *fakeServer) Txn(_ context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.txns = append(f.txns, r)
	answer := &pb.TxnResponse{Header: &pb.ResponseHeader{}, Succeeded: true}
	for _, op := range r.Success {
		if put := op.GetRequestPut(); put != nil {
			f.values[string(put.Key)] = put.Value
		}
		answer.Responses = append(answer.Responses, &pb.ResponseOp{})
	}
	return answer, nil
}

func (f *fakeServer) Watch(stream pb.Watch_WatchServer) error {
	sending := &sync.Mutex{}
	for id := int64(0); ; id++ {
		request, err := stream.Recv()
		if err != nil {
			return nil //nolint:nilerr // the client has gone
		}
		f.mu.Lock()
		f.watches = append(f.watches, &fakeWatch{id, string(request.GetCreateRequest().Key), sending, stream})
		f.mu.Unlock()
		sending.Lock()
		err = stream.Send(&pb.WatchResponse{WatchId: id, Created: true})
		sending.Unlock()
		if err != nil {
			return err
		}
	}
}

func (f *fakeServer) LeaseGrant(context.Context, *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := int64(len(f.leases) + 1)
	f.leases[id] = true
	return &pb.LeaseGrantResponse{ID: id, TTL: leaseTTL}, nil
}

func (f *fakeServer) LeaseRevoke(_ context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leases[r.ID] = false
	return &pb.LeaseRevokeResponse{}, nil
}

func (f *fakeServer) LeaseKeepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	for {
		request, err := stream.Recv()
		if err != nil {
			return nil //nolint:nilerr // the client has gone
		}
		f.mu.Lock()
		f.renewals++
		known := f.leases[request.ID]
		f.mu.Unlock()
		answer := &pb.LeaseKeepAliveResponse{ID: request.ID}
		if known {
			answer.TTL = leaseTTL
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
}
