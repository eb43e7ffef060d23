package grpcproxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"path"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

const (
	// overheadBytes is what a request may have beyond the limit of the members, so
	// that they, and not gRPC, refuse it.
	overheadBytes = 512 << 10
	// sniffTimeout bounds how long a new connection may stay silent.
	sniffTimeout      = 30 * time.Second
	headerTimeout     = 30 * time.Second
	protoHTTP2        = "h2"
	protoHTTP1        = "http/1.1"
	http2PrefaceStart = "PRI"
)

func withOverhead(bytes int) int { return min(bytes, math.MaxInt32-overheadBytes) + overheadBytes }

func (p *Proxy) serverOptions() []grpc.ServerOption {
	c := &p.cfg
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec{}),
		grpc.UnknownServiceHandler(p.forward),
		grpc.WaitForHandlers(true), // nothing of a client's outlives Run
		grpc.MaxRecvMsgSize(withOverhead(c.SendBytesMax)),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.MaxConcurrentStreams(c.ConcurrentStreams),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: c.KeepAliveMinTime}),
	}
	if c.KeepAliveInterval > 0 {
		options = append(options, grpc.KeepaliveParams(keepalive.ServerParameters{Time: c.KeepAliveInterval, Timeout: c.KeepAliveTimeout}))
	}
	if c.LogRPCs {
		options = append(options, grpc.ChainUnaryInterceptor(p.logUnary), grpc.ChainStreamInterceptor(p.logStream))
	}
	return options
}

func (p *Proxy) logUnary(ctx context.Context, r any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	start := time.Now()
	response, err := handle(ctx, r)
	p.logCall(info.FullMethod, start, err)
	return response, err
}

func (p *Proxy) logStream(s any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	start := time.Now()
	err := handle(s, stream)
	p.logCall(info.FullMethod, start, err)
	return err
}

func (p *Proxy) logCall(method string, start time.Time, err error) {
	p.log.Info("finished call", "grpc.service", path.Dir(method)[1:], "grpc.method", path.Base(method),
		"grpc.code", status.Code(err).String(), "took", time.Since(start))
}

func newHTTP(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
}

// noteOffers makes each handshake note what its client offers.
func noteOffers(c *tls.Config) *tls.Config {
	inner := c.GetConfigForClient
	c = c.Clone()
	c.NextProtos = []string{protoHTTP2, protoHTTP1}
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if o, ok := hello.Conn.(*offerConn); ok {
			o.web = len(hello.SupportedProtos) == 0 || slices.Contains(hello.SupportedProtos, protoHTTP1)
		}
		chosen, err := inner(hello)
		if err == nil {
			chosen.NextProtos = c.NextProtos
		}
		return chosen, err
	}
	return c
}

// offerConn is a connection under TLS.
type offerConn struct {
	net.Conn
	web bool // the client offers HTTP/1.1
}

// splitter shares one port between gRPC and HTTP. In the clear the first bytes of
// a connection tell. Under TLS the client's offer does: gRPC clients offer HTTP/2
// alone; who offers HTTP/1.1 besides, as curl and some gRPC libraries do, is served
// by net/http, which speaks both and hands gRPC over by its content type.
type splitter struct {
	listener   net.Listener
	tls        *tls.Config // nil: in the clear
	log        *slog.Logger
	grpc, http *branch
}

// branch is one side of a splitter, as a listener.
type branch struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newSplitter(l net.Listener, secured *tls.Config, log *slog.Logger) *splitter {
	side := func() *branch {
		return &branch{addr: l.Addr(), conns: make(chan net.Conn), done: make(chan struct{})}
	}
	return &splitter{listener: l, tls: secured, log: log, grpc: side(), http: side()}
}

// Accept implements net.Listener.
func (b *branch) Accept() (net.Conn, error) {
	select {
	case c := <-b.conns:
		return c, nil
	case <-b.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (b *branch) Close() error {
	b.once.Do(func() { close(b.done) })
	return nil
}

// Addr implements net.Listener.
func (b *branch) Addr() net.Addr { return b.addr }

// run accepts until ctx ends. Each connection is looked at on a goroutine of its
// own, so that one that stays silent holds up no other.
func (s *splitter) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var sorting sync.WaitGroup
	defer sorting.Wait()
	defer cancel()
	defer func() { _, _ = s.grpc.Close(), s.http.Close() }()
	for {
		c, err := s.listener.Accept()
		switch {
		case err == nil:
			sorting.Go(func() { s.sort(ctx, c) })
		case errors.Is(err, net.ErrClosed) || ctx.Err() != nil:
			return nil
		default:
			s.log.Warn("a connection could not be accepted", "error", err.Error())
			wait(ctx, 100*time.Millisecond)
		}
	}
}

// sort gives a connection to the side that it is for, or closes it.
func (s *splitter) sort(ctx context.Context, raw net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	_ = raw.SetDeadline(time.Now().Add(sniffTimeout))
	side, c, err := s.look(ctx, raw)
	if err != nil {
		if !errors.Is(err, io.EOF) {
			s.log.Warn("rejected connection", "remote-addr", c.RemoteAddr().String(), "error", err.Error())
		}
		stop()
		_ = c.Close()
		return
	}
	_ = c.SetDeadline(time.Time{})
	select {
	case side.conns <- c:
	case <-side.done:
		_ = c.Close()
	}
	stop()
}

// look finds out the side.
func (s *splitter) look(ctx context.Context, c net.Conn) (*branch, net.Conn, error) {
	if s.tls != nil {
		under := &offerConn{Conn: c}
		t := tls.Server(under, s.tls)
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, c, fmt.Errorf("tls handshake: %w", err)
		}
		if under.web {
			return s.http, t, nil
		}
		return s.grpc, t, nil
	}
	r := bufio.NewReaderSize(c, 16)
	if _, err := r.Peek(len(http2PrefaceStart)); err != nil {
		return nil, c, err
	}
	head := make([]byte, r.Buffered())
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, c, err
	}
	c = &seenConn{Conn: c, head: head}
	if bytes.HasPrefix(head, []byte(http2PrefaceStart)) {
		return s.grpc, c, nil
	}
	return s.http, c, nil
}

// seenConn gives out again what was read to look at.
type seenConn struct {
	net.Conn
	head []byte
}

// Read implements net.Conn.
func (c *seenConn) Read(b []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(b, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}
