package grpcproxy

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// testWait bounds every wait of a test.
const testWait = 20 * time.Second

// fakeMember is a member that keeps only history: what the proxy makes of it is
// what the tests are about.
type fakeMember struct {
	pb.UnimplementedKVServer
	pb.UnimplementedWatchServer
	pb.UnimplementedLeaseServer
	pb.UnimplementedClusterServer
	address    string
	clientURLs []string // of all members

	mu        sync.Mutex
	history   []*mvccpb.Event // guarded by mu; of revisions 2, 3, …
	compacted int64           // guarded by mu
	changed   chan struct{}   // guarded by mu; closed at the next change
	cut       chan struct{}   // guarded by mu; closed to break all streams
	watches   int             // guarded by mu: streams that were opened
	ranges    int             // guarded by mu
	lagging   int             // guarded by mu: reads to be answered from the past
	renewals  int             // guarded by mu
	hold      chan struct{}   // guarded by mu; not nil: renewals wait for it
}

func startMember(t *testing.T, options ...grpc.ServerOption) *fakeMember {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &fakeMember{address: l.Addr().String(), changed: make(chan struct{}), cut: make(chan struct{})}
	s := grpc.NewServer(options...)
	pb.RegisterKVServer(s, m)
	pb.RegisterWatchServer(s, m)
	pb.RegisterLeaseServer(s, m)
	pb.RegisterClusterServer(s, m)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return m
}

func (m *fakeMember) revision() int64 { return int64(len(m.history)) + 1 }

// write adds one revision.
func (m *fakeMember) write(key, value string) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	rev := m.revision() + 1
	m.history = append(m.history, &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), ModRevision: rev}})
	close(m.changed)
	m.changed = make(chan struct{})
	return rev
}

// breakStreams ends all streams as a member does that dies.
func (m *fakeMember) breakStreams() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.cut)
	m.cut = make(chan struct{})
}

func (m *fakeMember) count(n *int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return *n
}

func (m *fakeMember) Put(_ context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	return &pb.PutResponse{Header: &pb.ResponseHeader{Revision: m.write(string(r.Key), string(r.Value))}}, nil
}

func (m *fakeMember) MemberList(context.Context, *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	return &pb.MemberListResponse{Members: []*pb.Member{{Name: "m", ClientURLs: m.clientURLs}}}, nil
}

// Range gives the newest value of one key.
func (m *fakeMember) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	if callerOf(ctx).token == "stranger" {
		return nil, status.Error(codes.PermissionDenied, "etcdserver: permission denied")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ranges++
	now := m.revision()
	if r.Serializable && m.lagging > 0 {
		m.lagging--
		now--
	}
	response := &pb.RangeResponse{Header: &pb.ResponseHeader{ClusterId: 7, Revision: now}}
	for _, e := range m.history[:now-1] {
		if bytes.Equal(e.Kv.Key, r.Key) {
			response.Kvs, response.Count = []*mvccpb.KeyValue{e.Kv}, 1
		}
	}
	return response, nil
}

func (m *fakeMember) Watch(s pb.Watch_WatchServer) error {
	r, err := s.Recv()
	if err != nil {
		return err
	}
	create := r.GetCreateRequest()
	m.mu.Lock()
	m.watches++
	cut, now, compacted := m.cut, m.revision(), m.compacted
	m.mu.Unlock()
	if err := s.Send(&pb.WatchResponse{Header: &pb.ResponseHeader{ClusterId: 7, Revision: now}, Created: true}); err != nil {
		return err
	}
	if create.StartRevision < compacted {
		return s.Send(&pb.WatchResponse{Header: &pb.ResponseHeader{}, Canceled: true, CompactRevision: compacted})
	}
	asked := make(chan struct{})
	go func() {
		for {
			if _, err := s.Recv(); err != nil {
				return
			}
			select {
			case asked <- struct{}{}:
			case <-s.Context().Done():
				return
			}
		}
	}()
	return m.follow(s, create, cut, asked)
}

// follow sends history from the start revision on, and then what comes.
func (m *fakeMember) follow(s pb.Watch_WatchServer, create *pb.WatchCreateRequest, cut, asked chan struct{}) error {
	for next := create.StartRevision; ; {
		m.mu.Lock()
		now, changed := m.revision(), m.changed
		var events []*mvccpb.Event
		for ; next <= now; next++ {
			if next < 2 {
				continue
			}
			if e := m.history[next-2]; bytes.Equal(e.Kv.Key, create.Key) {
				events = append(events, e)
			}
		}
		m.mu.Unlock()
		for len(events) > 0 {
			n := min(len(events), 10)
			if err := s.Send(&pb.WatchResponse{Header: &pb.ResponseHeader{ClusterId: 7, Revision: now}, Events: events[:n]}); err != nil {
				return err
			}
			events = events[n:]
		}
		select {
		case <-changed:
		case <-asked:
			if create.StartRevision <= now {
				if err := s.Send(&pb.WatchResponse{Header: &pb.ResponseHeader{ClusterId: 7, Revision: now}, WatchId: -1}); err != nil {
					return err
				}
			}
		case <-cut:
			return status.Error(codes.Unavailable, "the member died")
		case <-s.Context().Done():
			return nil
		}
	}
}

func (m *fakeMember) LeaseKeepAlive(s pb.Lease_LeaseKeepAliveServer) error {
	for {
		r, err := s.Recv()
		if err != nil {
			return err
		}
		m.mu.Lock()
		m.renewals++
		hold, cut := m.hold, m.cut
		m.mu.Unlock()
		if hold != nil {
			select {
			case <-hold:
			case <-cut:
				return status.Error(codes.Unavailable, "the member died")
			case <-s.Context().Done():
				return nil
			}
		}
		if err := s.Send(&pb.LeaseKeepAliveResponse{ID: r.ID, TTL: 10}); err != nil {
			return err
		}
	}
}

// parseFlags is a configuration as the command would have it.
func parseFlags(t *testing.T, args ...string) Config {
	t.Helper()
	var c Config
	if err := c.flags("test").Parse(append([]string{"--listen-addr", "127.0.0.1:0"}, args...)); err != nil {
		t.Fatal(err)
	}
	return c
}

// startProxy runs a proxy before the member until the test ends.
func startProxy(t *testing.T, m *fakeMember, args ...string) *Proxy {
	t.Helper()
	p, err := New(t.Context(), parseFlags(t, append([]string{"--endpoints", m.address}, args...)...), silentLog())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("the proxy ended with %v", err)
		}
	})
	return p
}

// dial connects to the proxy in the clear, or with the credentials given.
func dial(t *testing.T, p *Proxy, with ...credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	with = append(with, insecure.NewCredentials())
	conn, err := grpc.NewClient(p.Addr().String(), grpc.WithTransportCredentials(with[0]))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testWait)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for something that no event tells of.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(testWait)
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("still not so: %s", what)
		}
		<-ticker.C
	}
}

func silentLog() *slog.Logger { return slog.New(slog.DiscardHandler) }
