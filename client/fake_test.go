package client

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// fakeMember is a member whose connection breaks when the test wants: each
// watch stream is handed to the script of the test.
type fakeMember struct {
	pb.UnimplementedKVServer
	pb.UnimplementedWatchServer
	pb.UnimplementedLeaseServer
	pb.UnimplementedAuthServer

	address string
	watch   func(n int, s pb.Watch_WatchServer) error
	put     func(ctx context.Context) (*pb.PutResponse, error)
	get     func(ctx context.Context, n int) (*pb.RangeResponse, error)
	keep    func(s pb.Lease_LeaseKeepAliveServer) error

	mu                 sync.Mutex
	watches, gets, tok int // guarded by mu: calls so far
}

func startFake(t *testing.T, f *fakeMember) *Client {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.address = l.Addr().String()
	s := grpc.NewServer()
	pb.RegisterKVServer(s, f)
	pb.RegisterWatchServer(s, f)
	pb.RegisterLeaseServer(s, f)
	pb.RegisterAuthServer(s, f)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return newClient(t, Config{Endpoints: []string{f.address}})
}

func newClient(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func (f *fakeMember) count(n *int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	*n++
	return *n
}

func (f *fakeMember) Watch(s pb.Watch_WatchServer) error { return f.watch(f.count(&f.watches), s) }

func (f *fakeMember) Put(ctx context.Context, _ *pb.PutRequest) (*pb.PutResponse, error) {
	return f.put(ctx)
}

func (f *fakeMember) Range(ctx context.Context, _ *pb.RangeRequest) (*pb.RangeResponse, error) {
	return f.get(ctx, f.count(&f.gets))
}

func (f *fakeMember) LeaseKeepAlive(s pb.Lease_LeaseKeepAliveServer) error { return f.keep(s) }

func (f *fakeMember) Authenticate(context.Context, *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	return &pb.AuthenticateResponse{Token: []string{"", "first", "second", "third"}[f.count(&f.tok)]}, nil
}

// accept reads a creation and confirms it at revision rev.
func accept(t *testing.T, s pb.Watch_WatchServer, rev int64) *pb.WatchCreateRequest {
	t.Helper()
	r, err := s.Recv()
	if err != nil {
		return nil
	}
	create := r.GetCreateRequest()
	if create == nil {
		t.Errorf("got %v, want a creation", r)
		return nil
	}
	send(t, s, &pb.WatchResponse{Header: &pb.ResponseHeader{Revision: rev}, WatchId: create.WatchId, Created: true})
	return create
}

func send(t *testing.T, s pb.Watch_WatchServer, r *pb.WatchResponse) {
	t.Helper()
	if err := s.Send(r); err != nil {
		t.Errorf("send: %v", err)
	}
}

// events is a response with one put for each revision.
func events(id int64, header int64, revs ...int64) *pb.WatchResponse {
	r := &pb.WatchResponse{Header: &pb.ResponseHeader{Revision: header}, WatchId: id}
	for _, rev := range revs {
		r.Events = append(r.Events, &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte("k"), ModRevision: rev}})
	}
	return r
}

var errLost = status.Error(codes.Unavailable, "connection lost")

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func tokenOf(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get("token"); len(v) > 0 {
		return v[0]
	}
	return ""
}
