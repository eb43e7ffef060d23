package server

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
)

const (
	// handshakeTimeout bounds how long a new connection may take to become a
	// usable one.
	handshakeTimeout = 10 * time.Second
	// Refused connections are logged at most so often: whoever is refused must
	// not be able to fill the disk.
	refusalsEvery = time.Second
	refusalsMax   = 10
)

const (
	protoHTTP1 = "http/1.1"
	protoHTTP2 = "h2"
)

// helloConn is a connection in its handshake, with what its client said first.
type helloConn struct {
	net.Conn
	http1      bool // offered besides HTTP/2
	serverName string
}

// noteOffers makes the configuration fill in helloConn.
func noteOffers(c *tls.Config) *tls.Config {
	c = c.Clone()
	configFor := c.GetConfigForClient
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if conn, ok := hello.Conn.(*helloConn); ok {
			conn.http1, conn.serverName = slices.Contains(hello.SupportedProtos, protoHTTP1), hello.ServerName
		}
		return configFor(hello)
	}
	return c
}

// handshake finishes the handshake of a connection and gives it to its side.
func (s *splitter) handshake(ctx context.Context, raw net.Conn) {
	hello := &helloConn{Conn: raw}
	c := tls.Server(hello, s.tls)
	_ = c.SetDeadline(time.Now().Add(handshakeTimeout))
	if err := c.HandshakeContext(ctx); err != nil {
		s.refuse(hello, err)
		return
	}
	_ = c.SetDeadline(time.Time{})
	if s.grpc != nil && !hello.http1 && c.ConnectionState().NegotiatedProtocol == protoHTTP2 {
		s.grpc.offer(c)
		return
	}
	if s.direct == nil || c.ConnectionState().NegotiatedProtocol == protoHTTP2 {
		s.http.offer(c)
		return
	}
	if head := s.direct.Serve(ctx, c, nil); len(head) > 0 {
		s.http.offer(&peekedConn{Conn: c, head: head})
	}
}

// refuse closes a connection and tells the operator why.
func (s *splitter) refuse(c *helloConn, err error) {
	defer func() { _ = c.Close() }()
	if wrong := (tls.RecordHeaderError{}); errors.As(err, &wrong) && wrong.Conn != nil && isHTTP1(wrong.RecordHeader) {
		_, _ = io.WriteString(wrong.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
	}
	if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return // a probe of the port, or we stop
	}
	if more, ok := s.refused.due(time.Now()); ok {
		s.log.Warn("rejected connection on "+s.side+" endpoint", "remote-addr", c.RemoteAddr().String(),
			"server-name", c.serverName, "error", err.Error(), "not-logged-before", more)
	}
}

// isHTTP1 recognises the first bytes of a method.
func isHTTP1(head [5]byte) bool {
	return slices.ContainsFunc([]string{"GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET"}, func(m string) bool { return string(head[:]) == m })
}

// refusals lets through a few log lines in a while and counts the others.
type refusals struct {
	mu      sync.Mutex // guards what follows
	since   time.Time
	logged  int
	skipped int
}

// due tells whether to log now, and how many were not since the last.
func (r *refusals) due(now time.Time) (skipped int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.since) > refusalsEvery {
		r.since, r.logged = now, 0
	}
	if r.logged == refusalsMax {
		r.skipped++
		return 0, false
	}
	r.logged++
	skipped, r.skipped = r.skipped, 0
	return skipped, true
}

// handshaken are the credentials of connections that come from a splitter: what
// is to be known of a TLS client is known. The embedded ones are for those in
// the clear.
type handshaken struct {
	credentials.TransportCredentials
}

// ServerHandshake is grpc's.
func (h handshaken) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, ok := c.(*tls.Conn)
	if !ok {
		return h.TransportCredentials.ServerHandshake(c)
	}
	info := credentials.TLSInfo{State: secured.ConnectionState(), CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
	return c, info, nil
}

// Clone is grpc's.
func (h handshaken) Clone() credentials.TransportCredentials {
	return handshaken{h.TransportCredentials.Clone()}
}

// grpcByContentType serves gRPC that came to net/http, and everything else.
func grpcByContentType(grpc, other http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			grpc.ServeHTTP(w, r)
			return
		}
		other.ServeHTTP(w, r)
	})
}

// tlsState is the key of what a connection under TLS is, in its context.
type tlsState struct{}

// noteTLS keeps what net/http does not see of a connection from which somebody
// has read before.
func noteTLS(ctx context.Context, c net.Conn) context.Context {
	peeked, ok := c.(*peekedConn)
	if !ok {
		return ctx
	}
	secured, ok := peeked.Conn.(*tls.Conn)
	if !ok {
		return ctx
	}
	state := secured.ConnectionState()
	return context.WithValue(ctx, tlsState{}, &state)
}

// withTLS gives requests what noteTLS has kept: who has which certificate.
func withTLS(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if state, ok := r.Context().Value(tlsState{}).(*tls.ConnectionState); ok {
			r.TLS = state
		}
		next.ServeHTTP(w, r)
	})
}
