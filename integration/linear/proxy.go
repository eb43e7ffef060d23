package linear

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
)

// Link is the way of one member's connections to another.
type Link struct{ From, To string }

// Fate is what happens to a link.
type Fate int

// The fates. A cut link's connections break and new ones are closed at once; on a frozen link nothing arrives, and what
// was on its way arrives when it thaws.
const (
	Whole Fate = iota
	Cut
	Frozen
)

// Proxies carry the connections between members. The caller of a connection is known by the X-Server-From header of its
// first request, which members send to each other.
type Proxies struct {
	mu        sync.Mutex
	names     map[string]string // guarded by mu: hex member ID -> name
	fates     map[Link]Fate     // guarded by mu
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
	go p.serve(l, name, strings.TrimPrefix(listenURL, "http://"))
	return "http://" + l.Addr().String(), nil
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

func (p *Proxies) serve(l net.Listener, to, address string) {
	for {
		near, err := l.Accept()
		if err != nil {
			return
		}
		go p.carry(near, to, address)
	}
}

// carry learns who calls, then copies both ways until one side ends.
func (p *Proxies) carry(near net.Conn, to, address string) {
	defer func() { _ = near.Close() }()
	reader := bufio.NewReaderSize(near, 64<<10)
	from, ok := p.caller(reader)
	if !ok {
		return
	}
	link := Link{from, to}
	if !p.pass(link) {
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
	group.Go(func() { p.copy(c, far, reader) })
	group.Go(func() { p.copy(c, near, far) })
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

// pass waits while the link is frozen; false: it is cut.
func (p *Proxies) pass(l Link) bool {
	for {
		p.mu.Lock()
		fate, changed := p.fates[l], p.changed
		p.mu.Unlock()
		if fate != Frozen {
			return fate == Whole
		}
		<-changed
	}
}

type source interface{ Read([]byte) (int, error) }

func (p *Proxies) copy(c *pipe, to net.Conn, from source) {
	defer c.close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if !p.pass(c.link) {
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
