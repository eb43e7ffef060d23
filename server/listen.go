package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"sync"
	"syscall"
	"time"
)

// sniffTimeout bounds how long a new connection may stay silent before it must
// say whether it speaks HTTP/1 or HTTP/2.
const sniffTimeout = 30 * time.Second

// http2Preface is what every HTTP/2 client sends first.
const http2Preface = "PRI * HTTP/2.0"

// listen opens the socket of a listen URL.
func listen(ctx context.Context, u url.URL) (net.Listener, error) {
	network, address := "tcp", u.Host
	if u.Scheme == "unix" || u.Scheme == "unixs" {
		network, address = "unix", u.Host+u.Path
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", u.String(), err)
	}
	return l, nil
}

// splitter shares one port between gRPC, which is HTTP/2, and HTTP/1: the first
// bytes of a connection decide.
type splitter struct {
	net.Listener
	http2, http1 *branch
}

// branch is one side of a splitter, as a listener.
type branch struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newSplitter(l net.Listener) *splitter {
	side := func() *branch {
		return &branch{addr: l.Addr(), conns: make(chan net.Conn), done: make(chan struct{})}
	}
	return &splitter{Listener: l, http2: side(), http1: side()}
}

// run accepts until the listener is closed. Each connection is looked at on a
// goroutine of its own that ends when a side took the connection.
func (s *splitter) run() error {
	defer s.http1.Close()
	defer s.http2.Close()
	var pause time.Duration
	for {
		c, err := s.Accept()
		switch {
		case err == nil:
			pause = 0
			go s.sort(c)
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

func (s *splitter) sort(c net.Conn) {
	_ = c.SetReadDeadline(time.Now().Add(sniffTimeout))
	r := bufio.NewReaderSize(c, 512)
	side := s.http1
	for n := 1; ; n++ {
		head, err := r.Peek(n)
		if err != nil {
			c.Close()
			return
		}
		if string(head) != http2Preface[:n] {
			break
		}
		if n == len(http2Preface) {
			side = s.http2
			break
		}
	}
	_ = c.SetReadDeadline(time.Time{})
	side.offer(&peekedConn{Conn: c, head: r})
}

func (b *branch) offer(c net.Conn) {
	select {
	case b.conns <- c:
	case <-b.done:
		c.Close()
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
	b.once.Do(func() { close(b.done) })
	return nil
}

// Addr is net.Listener's.
func (b *branch) Addr() net.Addr { return b.addr }

// peekedConn gives back the bytes that were looked at, then reads from the
// connection itself.
type peekedConn struct {
	net.Conn
	head *bufio.Reader // nil when empty
}

func (c *peekedConn) Read(p []byte) (int, error) {
	if c.head == nil {
		return c.Conn.Read(p)
	}
	n, err := c.head.Read(p[:min(len(p), max(1, c.head.Buffered()))])
	if c.head.Buffered() == 0 {
		c.head = nil
	}
	return n, err
}
