package server

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/http"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/kvorum/kvorum/server/api"
	"github.com/kvorum/kvorum/server/gateway"
)

const (
	// gatewayBufferBytes is what a connection from the gateway buffers each way.
	gatewayBufferBytes = 256 << 10
	// A message is at most so many times larger in JSON: base64 takes a third,
	// the rest is for names and whitespace.
	jsonGrowth = 2
)

// gatewayLink joins the JSON gateway to the gRPC server inside the process: no
// socket, no name to look up, no certificate.
type gatewayLink struct {
	listener *bufconn.Listener // for the gRPC server
	conn     *grpc.ClientConn
}

func newGatewayLink() (*gatewayLink, error) {
	l := bufconn.Listen(gatewayBufferBytes)
	conn, err := grpc.NewClient("passthrough:///gateway",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(streamWindowBytes), grpc.WithInitialConnWindowSize(connWindowBytes),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)))
	if err != nil {
		return nil, fmt.Errorf("connect the gateway: %w", err)
	}
	return &gatewayLink{listener: l, conn: conn}, nil
}

// serve lets the gRPC server answer the gateway until ctx ends.
func (l *gatewayLink) serve(ctx context.Context, g *grpc.Server) error {
	stop := context.AfterFunc(ctx, func() { _ = l.listener.Close() })
	defer stop()
	err := g.Serve(l.listener)
	if ctx.Err() != nil {
		return nil
	}
	return ignoreStopped(err)
}

func (l *gatewayLink) close() {
	_ = l.conn.Close()
	_ = l.listener.Close()
}

// gatewayHandler serves /v3/ and /v3beta/.
func (s *Server) gatewayHandler(conn grpc.ClientConnInterface) http.Handler {
	messageBytesMax := int(s.cfg.MaxRequestBytes) + grpcOverheadBytes
	limits := gateway.Limits{JSONBytesMax: jsonGrowth * messageBytesMax, MessageBytesMax: messageBytesMax, Hold: s.unsent.Hold}
	g := gateway.New(conn, limits, s.cfg.CORS)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.certificateIsALogin(r) {
			refuseCertificate(w)
			return
		}
		if s.audit != nil {
			tellGateway(r)
		}
		g.ServeHTTP(w, r)
	})
}

func refuseCertificate(w http.ResponseWriter) {
	http.Error(w, "CommonName of client sending a request against gateway will be ignored and not used as expected", http.StatusBadRequest)
}

// certificateIsALogin tells a client that over gRPC would be a user by its
// certificate: through the gateway it must not believe to be one.
func (s *Server) certificateIsALogin(r *http.Request) bool {
	return s.cfg.ClientTLS.ClientCertAuth && s.machine.AuthEnabled() && api.CertificateName(r.TLS) != ""
}
