package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// network stands between the members: each advertises a proxy of its peer URL,
// so that links can be cut, in one direction too. A cut link swallows what is
// sent, as a firewall does; connections that lost something break at the heal.
type network struct {
	mu    sync.Mutex
	cut   map[link]bool         // guarded by mu
	conns map[*proxied]struct{} // guarded by mu
	names map[string]string     // guarded by mu: member ID in hex -> name
}

// link is one direction between two members, by name; "" is any member.
type link struct{ from, to string }

// proxied is one connection from a member to another.
type proxied struct {
	dialer, listener net.Conn
	from, to         string // names; from is "" until known
	lost             bool   // something was swallowed
}

func newNetwork(t *testing.T) *network {
	n := &network{cut: map[link]bool{}, conns: map[*proxied]struct{}{}, names: map[string]string{}}
	t.Cleanup(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		for c := range n.conns {
			c.close()
		}
	})
	return n
}

func (c *proxied) close() {
	_ = c.dialer.Close()
	_ = c.listener.Close()
}

// advertise starts the proxy of a member.
func (n *network) advertise(t *testing.T) func(name, listenURL string) (string, error) {
	return func(name, listenURL string) (string, error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", fmt.Errorf("listen for the proxy: %w", err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go n.accept(l, name, strings.TrimPrefix(listenURL, "http://"))
		return "http://" + l.Addr().String(), nil
	}
}

func (n *network) accept(l net.Listener, to, address string) {
	for {
		dialer, err := l.Accept()
		if err != nil {
			return
		}
		listener, err := net.Dial("tcp", address)
		if err != nil {
			_ = dialer.Close()
			continue
		}
		c := &proxied{dialer: dialer, listener: listener, to: to}
		n.mu.Lock()
		n.conns[c] = struct{}{}
		n.mu.Unlock()
		go n.forward(c)
	}
}

// forward copies both ways until one side ends.
func (n *network) forward(c *proxied) {
	var both sync.WaitGroup
	both.Go(func() { n.copy(c, c.listener, c.dialer, true) })
	both.Go(func() { n.copy(c, c.dialer, c.listener, false) })
	both.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
}

// copy swallows what is sent while the link is cut.
func (n *network) copy(c *proxied, to io.Writer, from io.Reader, request bool) {
	defer c.close()
	buffer := make([]byte, 64<<10)
	for {
		size, err := from.Read(buffer)
		if size > 0 && n.passes(c, buffer[:size], request) {
			if _, err := to.Write(buffer[:size]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// passes reports whether bytes get through, and learns from a request's header
// who calls.
func (n *network) passes(c *proxied, data []byte, request bool) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if request {
		if name := n.caller(data); name != "" {
			c.from = name
		}
	}
	l := link{c.from, c.to}
	if !request {
		l = link{c.to, c.from}
	}
	if n.cut[l] || n.cut[link{l.from, ""}] || n.cut[link{"", l.to}] {
		c.lost = true
		return false
	}
	return true
}

// caller reads the header by which members name themselves.
func (n *network) caller(data []byte) string {
	const header = "x-server-from: "
	at := bytes.Index(bytes.ToLower(data), []byte(header))
	if at < 0 {
		return ""
	}
	id, _, _ := strings.Cut(string(data[at+len(header):]), "\r\n")
	return n.names[id]
}

// know tells the network the IDs of the members.
func (n *network) know(e *env) error {
	ids := map[string]string{}
	for _, m := range e.members() {
		ids[fmt.Sprintf("%x", m.ID)] = m.Name
	}
	if len(ids) == 0 {
		return errors.New("no members")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.names = ids
	// Connections that were made before are nobody's: the members make new ones.
	for c := range n.conns {
		c.close()
	}
	return nil
}

// isolate cuts a member off, both ways.
func (n *network) isolate(name string) { n.sever(link{name, ""}, link{"", name}) }

func (n *network) sever(links ...link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range links {
		n.cut[l] = true
	}
}

// heal mends all links.
func (n *network) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
	for c := range n.conns {
		if c.lost {
			c.close()
		}
	}
}
