package bench

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

const (
	rpcRange     = "/etcdserverpb.KV/Range"
	rpcPut       = "/etcdserverpb.KV/Put"
	rpcTxn       = "/etcdserverpb.KV/Txn"
	rpcWatch     = "/etcdserverpb.Watch/Watch"
	rpcGrant     = "/etcdserverpb.Lease/LeaseGrant"
	rpcRevoke    = "/etcdserverpb.Lease/LeaseRevoke"
	rpcKeepAlive = "/etcdserverpb.Lease/LeaseKeepAlive"
	rpcStatus    = "/etcdserverpb.Maintenance/Status"
	rpcLogin     = "/etcdserverpb.Auth/Authenticate"
)

// duplex describes both of the streams that the loads open.
var duplex = grpc.StreamDesc{ClientStreams: true, ServerStreams: true}

// pool is the TCP connections of one load.
type pool struct {
	conns []*grpc.ClientConn
	token string
}

// dial opens the connections, in turn over the endpoints, and waits until each has answered a call.
func dial(ctx context.Context, o *Options) (*pool, error) {
	p := &pool{}
	for i := range o.Conns {
		endpoint := o.Endpoints[i%len(o.Endpoints)]
		conn, err := connect(endpoint, o.TLS)
		if err != nil {
			p.close()
			return nil, fmt.Errorf("endpoint %s: %w", endpoint, err)
		}
		p.conns = append(p.conns, conn)
	}
	if err := p.login(ctx, o); err != nil {
		p.close()
		return nil, err
	}
	for i, conn := range p.conns {
		if err := p.status(ctx, o, conn); err != nil {
			p.close()
			return nil, fmt.Errorf("endpoint %s does not answer: %w", o.Endpoints[i%len(o.Endpoints)], err)
		}
	}
	return p, nil
}

// connect makes one connection that retries nothing: a failed call is a failed operation.
func connect(endpoint string, config *tls.Config) (*grpc.ClientConn, error) {
	target, secure := target(endpoint)
	creds := insecure.NewCredentials()
	if config != nil || secure {
		creds = credentials.NewTLS(config)
	}
	return grpc.NewClient(target,
		grpc.WithTransportCredentials(creds),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(),
		grpc.WithInitialWindowSize(1<<20), grpc.WithInitialConnWindowSize(4<<20),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{}), grpc.MaxCallRecvMsgSize(1<<31-1)))
}

// target turns an endpoint as users write it into a gRPC target.
func target(endpoint string) (target string, secure bool) {
	scheme, rest, found := strings.Cut(endpoint, "://")
	if !found {
		return "passthrough:///" + endpoint, false
	}
	switch scheme {
	case "unix", "unixs":
		return "unix:" + rest, scheme == "unixs"
	}
	return "passthrough:///" + strings.TrimSuffix(rest, "/"), scheme == "https"
}

// login gets a token when there is a user.
func (p *pool) login(ctx context.Context, o *Options) error {
	if o.User == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, o.CallMax)
	defer cancel()
	answer := &pb.AuthenticateResponse{}
	err := p.conns[0].Invoke(ctx, rpcLogin, &pb.AuthenticateRequest{Name: o.User, Password: o.Password}, answer)
	if err != nil {
		return fmt.Errorf("authenticate %s: %w", o.User, err)
	}
	p.token = answer.Token
	return nil
}

// status is the call that warms a connection.
func (p *pool) status(ctx context.Context, o *Options, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(p.context(ctx), o.CallMax)
	defer cancel()
	return conn.Invoke(ctx, rpcStatus, &pb.StatusRequest{}, &reply{})
}

// context adds the token to calls.
func (p *pool) context(ctx context.Context) context.Context {
	if p.token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "token", p.token)
}

// at is the connection of worker or stream i.
func (p *pool) at(i int) *grpc.ClientConn { return p.conns[i%len(p.conns)] }

func (p *pool) close() {
	for _, conn := range p.conns {
		_ = conn.Close() // nothing depends on how a connection of ours ends
	}
}
