package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvorum/kvorum/server/v2http"
)

// listen opens the socket of a listen URL.
func (c *Config) listen(ctx context.Context, u url.URL) (net.Listener, error) {
	network, address := "tcp", u.Host
	if u.Scheme == "unix" || u.Scheme == "unixs" {
		network, address = "unix", u.Host+u.Path
	}
	l, err := (&net.ListenConfig{Control: c.shareSocket}).Listen(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", u.String(), err)
	}
	return l, nil
}

// shareSocket sets what the flags ask of a listening socket.
func (c *Config) shareSocket(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		if c.ReusePort {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) //nolint:gosec // a descriptor
		}
		if failed == nil && c.ReuseAddress {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) //nolint:gosec // a descriptor
		}
	})
	return errors.Join(err, failed)
}

// listener is an open socket.
type listener struct {
	net.Listener
	tls *tls.Config // nil: in the clear
}

// splitter shares one port between gRPC and HTTP. In the clear a sniffer looks at
// the first request of a connection. Under TLS the offer of the client does: gRPC clients offer
// HTTP/2 alone and go the short way; who offers HTTP/1.1 besides, as browsers and
// curl do, is served by net/http, which speaks both and hands gRPC over by its
// content type.
type splitter struct {
	listener
	log        *slog.Logger
	side       string         // "client" or "peer", for the log
	streamsMax uint32         // of a gRPC connection
	grpc, http *branch        // grpc nil: all is HTTP
	direct     *v2http.Direct // sees a connection before http does; nil: nobody does
	refused    refusals
}

// branch is one side of a splitter, as a listener.
type branch struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newBranch(l net.Listener) *branch {
	return &branch{addr: l.Addr(), conns: make(chan net.Conn), done: make(chan struct{})}
}

func newSplitter(l listener, side string, log *slog.Logger) *splitter {
	s := &splitter{listener: l, side: side, log: log, http: newBranch(l)}
	if l.tls != nil {
		s.tls = noteOffers(l.tls)
	}
	return s
}

// run accepts until ctx ends or the listener is closed. Each connection is
// looked at on a goroutine of its own, so that one that stays silent holds up no
// other; it ends when a side took the connection, and run waits for it.
func (s *splitter) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var sorting sync.WaitGroup
	defer sorting.Wait()
	defer cancel()
	defer s.http.end()
	if s.grpc != nil {
		defer s.grpc.end()
	}
	var pause time.Duration
	for {
		c, err := s.Accept()
		switch {
		case err == nil:
			pause = 0
			if s.side == "client" {
				endStalled(c)
			}
			sorting.Go(func() { s.sort(ctx, c) })
		case errors.Is(err, net.ErrClosed):
			return nil
		case isOutOfFiles(err):
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			time.Sleep(pause)
		default:
			return fmt.Errorf("accept on %s: %w", s.Addr(), err)
		}
	}
}

// isOutOfFiles tells an error that passes when other connections end.
func isOutOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED) || os.IsTimeout(err)
}

// sort gives a new connection to the side that it is for.
func (s *splitter) sort(ctx context.Context, c net.Conn) {
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if s.tls != nil {
		s.handshake(ctx, c)
		return
	}
	f := &sniffer{conn: c, streamsMax: s.streamsMax}
	grpc, err := f.side()
	if err != nil {
		_ = c.Close()
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	if grpc {
		s.grpc.offer(f.replay(grpc))
		return
	}
	if s.direct != nil {
		if f.head = s.direct.Serve(ctx, c, f.head); len(f.head) == 0 {
			return
		}
	}
	s.http.offer(f.replay(grpc))
}

func (b *branch) offer(c net.Conn) {
	select {
	case b.conns <- c:
	case <-b.done:
		_ = c.Close()
	}
}

// Accept is net.Listener's.
func (b *branch) Accept() (net.Conn, error) {
	select {
	case c := <-b.conns:
		return c, nil
	case <-b.done:
		return nil, net.ErrClosed
	}
}

// Close is net.Listener's; it does not close the shared socket.
func (b *branch) Close() error {
	b.end()
	return nil
}

// end turns away what is offered from now on.
func (b *branch) end() { b.once.Do(func() { close(b.done) }) }

// Addr is net.Listener's.
func (b *branch) Addr() net.Addr { return b.addr }
