package api

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// Guard is what every request passes before its service: a learner serves only
// what needs no vote, a client that asks for a leader is refused without, and
// the authoriser decides whether the client may make the request at all.
type Guard struct {
	*Services
}

// Unary guards one request.
func (g Guard) Unary(ctx context.Context, r any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	learner, led := g.member.Role()
	if learner && !learnerServes(r) {
		return nil, g.errors.Status(ErrLearnerRPC)
	}
	if !led && wantsLeader(ctx) {
		return nil, g.errors.Status(ErrNoLeader)
	}
	return g.auth.unary(ctx, info.FullMethod, r, next)
}

// Stream guards one stream.
func (g Guard) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	learner, led := g.member.Role()
	if learner && info.FullMethod != pb.Maintenance_Snapshot_FullMethodName {
		return g.errors.Status(ErrLearnerRPC)
	}
	if !wantsLeader(stream.Context()) {
		return next(srv, g.auth.stream(info.FullMethod, stream))
	}
	if !led {
		return g.errors.Status(ErrNoLeader)
	}
	return g.whileLed(srv, stream, info.FullMethod, next)
}

// whileLed runs a stream that must end when this member has been without a
// leader for a while.
func (g Guard) whileLed(srv any, stream grpc.ServerStream, method string, next grpc.StreamHandler) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	stop := g.member.OnLeaderLost(func() { cancel(ErrNoLeader) })
	defer stop()
	done := make(chan error, 1)
	go func() { done <- next(srv, g.auth.stream(method, ledStream{stream, ctx})) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		// Returning ends the stream, and with it the service's blocked receive.
		return g.errors.Status(context.Cause(ctx))
	}
}

// ledStream is a stream whose context ends when the leader is lost.
type ledStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s ledStream) Context() context.Context { return s.ctx }

func learnerServes(r any) bool {
	switch r := r.(type) {
	case *pb.StatusRequest:
		return true
	case *pb.RangeRequest:
		return r.Serializable
	}
	return false
}

func wantsLeader(ctx context.Context) bool {
	values := metadata.ValueFromIncomingContext(ctx, "hasleader")
	return len(values) > 0 && values[0] == "true"
}
