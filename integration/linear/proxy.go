package linear

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Link is the way from one member, or from Clients, to another.
type Link struct{ From, To string }

// Clients is who opens the connections that do not come from a member.
const Clients = "clients"

// Fate is what happens to a link.
type Fate int

// The fates. When a link is cut, the connections that From has opened to To break, and new ones are closed at once. On a
// frozen link nothing that From sends arrives at To, whoever opened the connection, and what was on its way arrives when
// it thaws: frozen in one direction only, To is still heard by From. On a slow link each piece takes its time.
const (
	Whole Fate = iota
	Cut
	Frozen
	Slow
)

// Proxies carry the connections between members and from clients. A member that calls another is known by the
// X-Server-From header of its first request.
type Proxies struct {
	mu        sync.Mutex
	names     map[string]string // guarded by mu: hex member ID -> name
	fates     map[Link]Fate     // guarded by mu
	slowness  time.Duration     // guarded by mu; what a piece takes on a slow link
	changed   chan struct{}     // guarded by mu; closed and replaced when fates change
	pipes     map[*pipe]bool    // guarded by mu
	listeners []net.Listener    // guarded by mu
	spare     []net.Listener    // guarded by mu: those of listeners that front nobody yet
}

type pipe struct {
	link     Link
	near     net.Conn
	far      net.Conn
	toFar    *bufio.Reader
	closeAll sync.Once
}

// NewProxies opens n proxies. They have their ports before any member looks for a free one.
func NewProxies(n int) (*Proxies, error) {
	p := &Proxies{names: map[string]string{}, fates: map[Link]Fate{}, changed: make(chan struct{}), pipes: map[*pipe]bool{}}
	for range n {
		if err := p.open(); err != nil {
			p.Close()
			return nil, err
		}
	}
	return p, nil
}

func (p *Proxies) open() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for members: %w", err)
	}
	p.listeners, p.spare = append(p.listeners, l), append(p.spare, l)
	return nil
}

// Front puts a proxy before a member that listens at listenURL and gives the URL to advertise.
func (p *Proxies) Front(name, listenURL string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.spare) == 0 {
		if err := p.open(); err != nil {
			return "", err
		}
	}
	l := p.spare[0]
	p.spare = p.spare[1:]
	go p.serve(l, "", name, strings.TrimPrefix(listenURL, "http://"))
	return "http://" + l.Addr().String(), nil
}

// FrontClients puts a proxy between clients and a member that serves at address, and gives the address for clients.
func (p *Proxies) FrontClients(name, address string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.open(); err != nil {
		return "", err
	}
	last := len(p.spare) - 1
	l := p.spare[last]
	p.spare = p.spare[:last]
	go p.serve(l, Clients, name, address)
	return l.Addr().String(), nil
}

// Name tells the proxies which member has an ID.
func (p *Proxies) Name(id uint64, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.names[fmt.Sprintf("%x", id)] = name
}

// Set gives links a fate and breaks connections that are cut by it.
func (p *Proxies) Set(f Fate, links ...Link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range links {
		p.fates[l] = f
	}
	for pipe := range p.pipes {
		if p.fates[pipe.link] == Cut {
			pipe.close()
		}
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// SetSlow makes links slow: each piece of up to 32 KiB takes so long.
func (p *Proxies) SetSlow(each time.Duration, links ...Link) {
	p.mu.Lock()
	p.slowness = each
	p.mu.Unlock()
	p.Set(Slow, links...)
}

// Close ends everything.
func (p *Proxies) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.listeners {
		_ = l.Close()
	}
	for pipe := range p.pipes {
		pipe.close()
	}
}

// serve carries every connection; from is who opens them, "" if their first request tells.
func (p *Proxies) serve(l net.Listener, from, to, address string) {
	for {
		near, err := l.Accept()
		if err != nil {
			return
		}
		go p.carry(near, from, to, address)
	}
}

// carry learns who calls, then copies both ways until one side ends.
func (p *Proxies) carry(near net.Conn, from, to, address string) {
	defer func() { _ = near.Close() }()
	reader := bufio.NewReaderSize(near, 64<<10)
	if from == "" {
		var ok bool
		if from, ok = p.caller(reader); !ok {
			return
		}
	}
	link := Link{from, to}
	if !p.pass(link, link) {
		return
	}
	far, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	c := &pipe{link: link, near: near, far: far, toFar: reader}
	p.mu.Lock()
	p.pipes[c] = true
	p.mu.Unlock()
	var group sync.WaitGroup
	group.Go(func() { p.copy(c, far, reader, link) })
	group.Go(func() { p.copy(c, near, far, Link{to, from}) })
	group.Wait()
	p.mu.Lock()
	delete(p.pipes, c)
	p.mu.Unlock()
}

// caller peeks at the header of the first request; "" when it does not say who calls.
func (p *Proxies) caller(r *bufio.Reader) (name string, ok bool) {
	for need := 1; ; {
		if _, err := r.Peek(need); err != nil {
			return "", false
		}
		head, _ := r.Peek(r.Buffered())
		if end := bytes.Index(head, []byte("\r\n\r\n")); end >= 0 {
			request, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head[:end+4])))
			if err != nil {
				return "", false
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.names[request.Header.Get("X-Server-From")], true
		}
		need = len(head) + 1
	}
}

// pass lets one piece of a connection pass in a direction, when its time has come; false: the connection is cut.
func (p *Proxies) pass(connection, direction Link) bool {
	for {
		p.mu.Lock()
		cut, fate, changed, slowness := p.fates[connection] == Cut, p.fates[direction], p.changed, p.slowness
		p.mu.Unlock()
		switch {
		case cut:
			return false
		case fate == Slow:
			wait(context.Background(), slowness)
			return true
		case fate != Frozen:
			return true
		}
		<-changed
	}
}

type source interface{ Read([]byte) (int, error) }

func (p *Proxies) copy(c *pipe, to net.Conn, from source, direction Link) {
	defer c.close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if !p.pass(c.link, direction) {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (c *pipe) close() {
	c.closeAll.Do(func() {
		_ = c.near.Close()
		_ = c.far.Close()
	})
}
