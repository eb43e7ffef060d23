package client

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// If this fails, a program sees errors of reads while a leader is elected.
func TestReadIsRepeatedWhenUnavailable(t *testing.T) {
	c := startFake(t, &fakeMember{get: func(_ context.Context, n int) (*pb.RangeResponse, error) {
		if n < 3 {
			return nil, status.Error(codes.Unavailable, "etcdserver: leader changed")
		}
		return &pb.RangeResponse{Count: 5}, nil
	}})
	r, err := c.Get(testContext(t), "k")
	if err != nil || r.Count != 5 {
		t.Errorf("got %v, %v", r, err)
	}
}

// If this fails, a write may be done twice.
func TestWriteIsNotRepeated(t *testing.T) {
	calls := 0
	c := startFake(t, &fakeMember{put: func(context.Context) (*pb.PutResponse, error) {
		calls++
		return nil, status.Error(codes.Unavailable, "etcdserver: request timed out")
	}})
	_, err := c.Put(testContext(t), "k", "v")
	if !errors.Is(err, ErrTimeout) || calls != 1 {
		t.Errorf("got %v after %d calls, want ErrTimeout after 1", err, calls)
	}
}

// If this fails, programs fail when their token expires.
func TestTokenIsRenewed(t *testing.T) {
	f := &fakeMember{get: func(ctx context.Context, _ int) (*pb.RangeResponse, error) {
		if tokenOf(ctx) != "second" {
			return nil, status.Error(codes.Unauthenticated, "etcdserver: invalid auth token")
		}
		return &pb.RangeResponse{}, nil
	}}
	startFake(t, f)
	c := newClient(t, Config{Endpoints: []string{f.address}, User: "u", Password: "p"})
	if _, err := c.Get(testContext(t), "k"); err != nil {
		t.Error(err)
	}
}

// If this fails, one member that is down makes calls fail though others are up.
func TestCallsGoToEndpointsThatAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	_ = l.Close()
	f := &fakeMember{put: func(context.Context) (*pb.PutResponse, error) { return &pb.PutResponse{}, nil }}
	startFake(t, f)
	c := newClient(t, Config{Endpoints: []string{dead, "http://" + f.address}})
	for range 10 {
		if _, err := c.Put(testContext(t), "k", "v"); err != nil {
			t.Fatal(err)
		}
	}
	one, err := c.At(dead)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = one.Put(ctx, "k", "v")
	if !errors.Is(err, context.DeadlineExceeded) || err.Error() != "context deadline exceeded" {
		t.Errorf("got %v, want deadline exceeded", err)
	}
	if detail := Detail(err); detail.Error() == err.Error() {
		t.Errorf("the detail says nothing of the refused connection: %v", detail)
	}
}

// If this fails, a session goes on after its lease was lost.
func TestKeepAliveRenewsUntilTheLeaseIsLost(t *testing.T) {
	c := startFake(t, &fakeMember{keep: func(s pb.Lease_LeaseKeepAliveServer) error {
		for n := 0; ; n++ {
			r, err := s.Recv()
			if err != nil {
				return nil //nolint:nilerr // the client has gone
			}
			ttl := int64(1)
			if n == 2 {
				ttl = 0
			}
			if err := s.Send(&pb.LeaseKeepAliveResponse{ID: r.ID, TTL: ttl}); err != nil {
				return err
			}
		}
	}})
	n := 0
	for range c.KeepAlive(testContext(t), 7) {
		n++
	}
	if n != 2 {
		t.Errorf("got %d renewals, want 2", n)
	}
	if _, err := c.KeepAliveOnce(testContext(t), 7); err != nil {
		t.Error(err)
	}
}

// If this fails, requests reach a proxy or a TLS check with the wrong name.
func TestParseEndpoint(t *testing.T) {
	for text, want := range map[string]endpoint{
		"localhost:2379":           {network: "tcp", address: "localhost:2379", authority: "localhost:2379"},
		"https://a.b:1/":           {network: "tcp", address: "a.b:1", authority: "a.b:1", scheme: true, secure: true},
		"unix://name:1":            {network: "unix", address: "name:1", authority: "localhost", scheme: true},
		"unixs:///run/kvorum.sock": {network: "unix", address: "/run/kvorum.sock", authority: "localhost", scheme: true, secure: true},
	} {
		if got, err := parseEndpoint(text); err != nil || got != want {
			t.Errorf("%s: got %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "ftp://a:1", "http://"} {
		if _, err := parseEndpoint(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

// If this fails, a prefix read or watch covers the wrong keys.
func TestPrefixEnd(t *testing.T) {
	for prefix, want := range map[string]string{"a": "b", "a\xff": "b", "\xff\xff": "\x00", "a/": "a0"} {
		if got := PrefixEnd([]byte(prefix)); string(got) != want {
			t.Errorf("%q: got %q, want %q", prefix, got, want)
		}
	}
}
