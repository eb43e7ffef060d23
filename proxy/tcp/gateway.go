package tcp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"
)

// dialTimeout bounds one attempt to reach an endpoint.
const dialTimeout = 5 * time.Second

// errNoEndpoint: not one answers. Clients are turned away.
var errNoEndpoint = errors.New("no endpoint answers")

// Endpoint is where connections are forwarded to.
type Endpoint struct {
	Address  string // host:port
	Priority uint16 // those with the lowest are used while one of them answers
}

// Gateway forwards connections. Make it with New, run it once with Run.
type Gateway struct {
	listener   net.Listener
	log        *slog.Logger
	retryDelay time.Duration
	dialer     net.Dialer

	mu        sync.Mutex
	endpoints []*remote // guarded by mu: its order and its contents; sorted by priority
	turn      int       // guarded by mu: of the round
}

type remote struct {
	Endpoint
	down bool
}

// Options are what a Gateway needs.
type Options struct {
	Listener   net.Listener
	Endpoints  []Endpoint
	RetryDelay time.Duration // until an endpoint that did not answer is tried again
	Resolver   *net.Resolver // of names in endpoints; nil is the system's
	Log        *slog.Logger
}

// New makes a gateway; the listener becomes its own.
func New(o Options) *Gateway {
	g := &Gateway{listener: o.Listener, log: o.Log, retryDelay: o.RetryDelay, dialer: net.Dialer{Timeout: dialTimeout, Resolver: o.Resolver}}
	for _, e := range o.Endpoints {
		g.endpoints = append(g.endpoints, &remote{Endpoint: e})
	}
	slices.SortStableFunc(g.endpoints, func(a, b *remote) int { return cmp.Compare(a.Priority, b.Priority) })
	return g
}

// Run forwards until ctx ends; connections that are open then are cut.
func (g *Gateway) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = g.listener.Close() })()
	running.Go(func() { g.revive(ctx) })
	for {
		conn, err := g.listener.Accept()
		switch {
		case err == nil:
			running.Go(func() { g.forward(ctx, conn) })
		case ctx.Err() != nil:
			return nil
		case isPassing(err):
			wait(ctx, 100*time.Millisecond)
		default:
			return fmt.Errorf("accept on %s: %w", g.listener.Addr(), err)
		}
	}
}

// isPassing tells an error of Accept that other connections cause, such as too
// many open files.
func isPassing(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !errors.Is(err, net.ErrClosed)
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// forward copies both directions until both are over.
func (g *Gateway) forward(ctx context.Context, client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := g.connect(ctx)
	if err != nil {
		g.log.Warn("a client was turned away", "client", client.RemoteAddr().String(), "error", err.Error())
		return
	}
	defer func() { _ = server.Close() }()
	defer context.AfterFunc(ctx, func() {
		_ = client.Close()
		_ = server.Close()
	})()
	var back sync.WaitGroup
	back.Go(func() { pump(client, server) })
	pump(server, client)
	back.Wait()
}

// pump copies until from ends, and tells to of that end; a failure cuts both.
func pump(to, from net.Conn) {
	_, err := io.Copy(to, from)
	half, ok := to.(interface{ CloseWrite() error })
	if err != nil || !ok {
		_ = to.Close()
		_ = from.Close()
		return
	}
	_ = half.CloseWrite()
}

// connect tries the endpoints that are not known to be down, in turn, and then,
// rather than turn a client away, those that are.
func (g *Gateway) connect(ctx context.Context) (net.Conn, error) {
	for _, r := range g.order() {
		conn, err := g.dialer.DialContext(ctx, "tcp", r.Address)
		if err == nil {
			g.mark(r, nil)
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		g.mark(r, err)
	}
	return nil, errNoEndpoint
}

// order gives the endpoints as they are to be tried.
func (g *Gateway) order() []*remote {
	g.mu.Lock()
	defer g.mu.Unlock()
	turn := g.turn
	g.turn++
	var up, down []*remote
	for first := 0; first < len(g.endpoints); {
		next := first
		for next < len(g.endpoints) && g.endpoints[next].Priority == g.endpoints[first].Priority {
			next++
		}
		group := g.endpoints[first:next]
		var ready []*remote
		for _, r := range group {
			if r.down {
				down = append(down, r)
			} else {
				ready = append(ready, r)
			}
		}
		if len(ready) > 0 {
			at := turn % len(ready)
			up = append(append(up, ready[at:]...), ready[:at]...)
		}
		first = next
	}
	return append(up, down...)
}

// mark notes whether an endpoint answers.
func (g *Gateway) mark(r *remote, err error) {
	g.mu.Lock()
	changed := r.down != (err != nil)
	r.down = err != nil
	g.mu.Unlock()
	switch {
	case changed && err != nil:
		g.log.Warn("deactivated endpoint", "address", r.Address, "interval", g.retryDelay, "error", err.Error())
	case changed:
		g.log.Info("activated endpoint", "address", r.Address)
	}
}

// revive tries the endpoints that are down, at intervals.
func (g *Gateway) revive(ctx context.Context) {
	ticker := time.NewTicker(g.retryDelay)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		for _, r := range g.down() {
			conn, err := g.dialer.DialContext(ctx, "tcp", r.Address)
			if err != nil {
				continue
			}
			_ = conn.Close()
			g.mark(r, nil)
		}
	}
}

func (g *Gateway) down() (all []*remote) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.endpoints {
		if r.down {
			all = append(all, r)
		}
	}
	return all
}
