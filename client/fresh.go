package client

import (
	"context"
	"crypto/tls"
	"net"

	"google.golang.org/grpc/credentials"
)

// freshTLS asks for the TLS configuration at each handshake, so that a client
// outlives its certificate and the authorities that it began with.
type freshTLS struct{ now func() *tls.Config }

func (f freshTLS) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(f.now()).ClientHandshake(ctx, authority, raw)
}

// ServerHandshake is never called: a client only dials.
func (f freshTLS) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(f.now()).ServerHandshake(raw)
}

func (f freshTLS) Info() credentials.ProtocolInfo { return credentials.NewTLS(f.now()).Info() }

func (f freshTLS) Clone() credentials.TransportCredentials { return f }

// OverrideServerName is for callers of an interface that gRPC no longer uses.
func (f freshTLS) OverrideServerName(string) error { return nil }
