package peer

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// base is where a member listens, in the form that net/http understands. A unix
// socket becomes a host name that carries the path; see dialer.
type base struct {
	url string // http or https, no trailing slash
}

// unixHost ends the host names that stand for unix sockets. The name cannot be
// a real one: "_" is no letter of a host name.
const unixHost = "._unix"

// parseURLs checks peer URLs: http, https, unix or unixs, each with a host (for
// unix: "host:port" or a path, which name the socket file).
func parseURLs(urls []string) ([]base, error) {
	if len(urls) == 0 {
		return nil, errors.New("no peer URL")
	}
	bases := make([]base, 0, len(urls))
	for _, s := range urls {
		b, err := parseURL(strings.TrimSpace(s))
		if err != nil {
			return nil, err
		}
		bases = append(bases, b)
	}
	return bases, nil
}

func parseURL(s string) (base, error) {
	scheme, path, _ := strings.Cut(s, "://")
	if scheme == "unix" || scheme == "unixs" {
		if path == "" {
			return base{}, fmt.Errorf("peer URL %q has no socket path", s)
		}
		scheme = strings.Replace(scheme, "unix", "http", 1)
		return base{url: scheme + "://" + hex.EncodeToString([]byte(path)) + unixHost}, nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return base{}, fmt.Errorf("parse peer URL %q: %w", s, err)
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return base{}, fmt.Errorf("peer URL %q: scheme must be http, https, unix or unixs", s)
	}
	if u.Host == "" {
		return base{}, fmt.Errorf("peer URL %q has no host", s)
	}
	return base{url: u.Scheme + "://" + u.Host + strings.TrimRight(u.Path, "/")}, nil
}

// urlList is the URLs of one member and the one that worked last. All links of
// the member share it, so that one failure moves them all.
type urlList struct {
	mu    sync.Mutex // guards what follows
	bases []base
	at    int
}

func (l *urlList) set(bases []base) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bases, l.at = bases, 0
}

func (l *urlList) pick() base {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bases[l.at]
}

// failed moves on to the next URL, unless another link has done so.
func (l *urlList) failed(b base) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bases[l.at] == b {
		l.at = (l.at + 1) % len(l.bases)
	}
}

// connTimeouts bound every single read and write of a connection; 0 is forever.
type connTimeouts struct{ read, write time.Duration }

// newClient returns a client whose connections keep the timeouts and whose TLS
// configuration is asked for at every dial. It speaks HTTP/1.1 only, follows no
// redirects and uses no proxy.
func newClient(cfg *Config, timeouts connTimeouts) *http.Client {
	d := dialer{cfg: cfg, timeouts: timeouts}
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:         d.dial,
			DialTLSContext:      d.dialTLS,
			MaxIdleConnsPerHost: 1,
			IdleConnTimeout:     2 * cfg.ProbeEvery,
			DisableCompression:  true,
			WriteBufferSize:     32 << 10,
			ReadBufferSize:      32 << 10,
		},
	}
}

// askersIdleMax is how many connections to one member are kept for questions.
const askersIdleMax = 256

// NewClient is a client for what members ask each other beside raft, with the
// same dialing. RequestURL makes its URLs. Only TLS, Dial and DialTimeout of cfg
// count.
func NewClient(cfg Config) *http.Client {
	cfg.setDefaults()
	c := newClient(&cfg, connTimeouts{})
	if t, ok := c.Transport.(*http.Transport); ok {
		// Many clients renew leases through a follower at once: closing and
		// opening a connection for each would cost more than the question.
		t.MaxIdleConnsPerHost, t.IdleConnTimeout = askersIdleMax, time.Minute
	}
	return c
}

// RequestURL is path below a peer URL, in the form that a client of NewClient
// understands.
func RequestURL(peerURL, path string) (string, error) {
	b, err := parseURL(peerURL)
	return b.url + path, err
}

// dialer opens the connections of one client.
type dialer struct {
	cfg      *Config
	timeouts connTimeouts
}

func (d dialer) dial(ctx context.Context, _, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.DialTimeout)
	defer cancel()
	network, address, err := socketOf(address)
	if err != nil {
		return nil, err
	}
	dial := d.cfg.Dial
	if dial == nil {
		dial = (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext
	}
	conn, err := dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if d.timeouts == (connTimeouts{}) {
		return conn, nil
	}
	return &timeoutConn{Conn: conn, timeouts: d.timeouts}, nil
}

func (d dialer) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{}
	if d.cfg.TLS != nil {
		config = d.cfg.TLS().Clone()
	}
	if config.ServerName == "" {
		config.ServerName = serverName(address)
	}
	config.NextProtos = nil
	ctx, cancel := context.WithTimeout(ctx, d.cfg.DialTimeout)
	defer cancel()
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("tls handshake with %s: %w", address, err)
	}
	return secure, nil
}

// serverName is the name that the certificate at address must have. A socket
// file is this machine's.
func serverName(address string) string {
	host, _, err := net.SplitHostPort(address)
	switch {
	case err != nil:
		return address
	case strings.HasSuffix(host, unixHost):
		return "localhost"
	}
	return host
}

// socketOf undoes what parseURLs did to a unix URL.
func socketOf(address string) (network, target string, err error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil || !strings.HasSuffix(host, unixHost) {
		return "tcp", address, nil
	}
	path, err := hex.DecodeString(strings.TrimSuffix(host, unixHost))
	if err != nil {
		return "", "", fmt.Errorf("decode socket path in %q: %w", address, err)
	}
	return "unix", string(path), nil
}

// timeoutConn fails a read or a write that makes no progress in time.
type timeoutConn struct {
	net.Conn
	timeouts connTimeouts
}

func (c *timeoutConn) Read(b []byte) (int, error) {
	if c.timeouts.read > 0 {
		if err := c.SetReadDeadline(time.Now().Add(c.timeouts.read)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Read(b)
}

func (c *timeoutConn) Write(b []byte) (int, error) {
	if c.timeouts.write > 0 {
		if err := c.SetWriteDeadline(time.Now().Add(c.timeouts.write)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(b)
}
