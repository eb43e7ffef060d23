package grpcproxy

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// errStopping ends the streams of clients when the proxy stops.
var errStopping = status.Error(codes.Unavailable, "etcdserver: server stopped")

// callOptions make a call use this package's codec.
func callOptions() []grpc.CallOption { return []grpc.CallOption{grpc.ForceCodecV2(codec{})} }

// endOf is the end of a stream as a handler returns it.
func endOf(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// forward serves every method that the proxy need not understand: what the client
// sends goes to a member and what that answers comes back, unread.
func (p *Proxy) forward(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	ctx, cancel := context.WithCancel(outgoing(stream.Context()))
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	up, err := p.client.Conn().NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method, callOptions()...)
	if err != nil {
		return err
	}
	go func() {
		for {
			var f frame
			if err := stream.RecvMsg(&f); err != nil {
				// The client has no more to say, or is gone; the latter ends ctx.
				_ = up.CloseSend()
				return
			}
			if up.SendMsg(&f) != nil {
				return // the error shows in RecvMsg
			}
		}
	}()
	for {
		var f frame
		if err := up.RecvMsg(&f); err != nil {
			stream.SetTrailer(up.Trailer())
			return endOf(err)
		}
		if err := stream.SendMsg(&f); err != nil {
			return err
		}
	}
}
