package v2http

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

const (
	// A connection may be silent for directIdle between requests; a request that
	// takes longer than directRequest to come in is left to net/http and its
	// bounds.
	directIdle    = 5 * time.Minute
	directRequest = 10 * time.Second
	// A connection keeps buffers of so many bytes while it has nothing to do.
	directBytesKept = 16 << 10
	directBytesMin  = 2 << 10
)

// Direct answers plain requests on keys on connections in HTTP/1.1, at less than
// half of what they cost by net/http. The first request of a connection that is
// not plain goes to net/http with all that follows:
//
//	        +--------- plain: answer ---------+
//	        v                                 |
//	read ---+--- not plain, wait, auth on ----+--> Serve returns the bytes
//	        |
//	        +--- client gone, idle, error -------> Serve closes
type Direct struct {
	handler *Handler
	common  string // headers of every answer
}

// Direct makes a Direct whose answers have more headers, the same for all.
func (h *Handler) Direct(more http.Header) *Direct {
	all := http.Header{clusterHeader: h.cluster}
	for name, values := range more {
		all[name] = values
	}
	var b strings.Builder
	_ = all.Write(&b) // to memory
	return &Direct{handler: h, common: b.String()}
}

// directConn is one connection. It belongs to the goroutine in Serve.
type directConn struct {
	*Direct
	net.Conn
	in, out, body []byte // in: received and not answered
	fields        []field
	date          []byte // the line of the second that follows
	second        int64
	deadline      deadline
	since         time.Time // it was set
}

// deadline is what a connection is waited for.
type deadline int

const (
	_         deadline = iota // none is set
	ofIdle                    // directIdle: between requests
	ofRequest                 // directRequest: the first request, or the rest of one
)

// Serve answers until a request comes that is not plain, and then returns all
// bytes from the first of it: the connection is net/http's from there on. With
// none it has closed the connection. head is what has been read before. ctx is
// the context of every request; who ends it closes the connection too.
func (d *Direct) Serve(ctx context.Context, conn net.Conn, head []byte) []byte {
	c := &directConn{Direct: d, Conn: conn, in: head}
	c.setDeadline(ofRequest)
	for {
		p, v := readPlain(c.in)
		switch {
		case v == whole && c.serve(ctx, &p):
			if !c.send(p.bytes) {
				_ = conn.Close()
				return nil
			}
			continue
		case v == part:
			err := c.more()
			if err == nil {
				continue
			}
			if len(c.in) == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				_ = conn.Close()
				return nil
			}
		}
		_ = conn.SetReadDeadline(time.Time{})
		return c.in
	}
}

// more reads what there is, at least a byte.
func (c *directConn) more() error {
	switch {
	case len(c.in) > 0:
		c.setDeadline(ofRequest)
	case c.second > 0: // it has been answered once
		c.setDeadline(ofIdle)
	}
	if len(c.in) == cap(c.in) {
		c.in = append(make([]byte, 0, max(2*cap(c.in), directBytesMin)), c.in...)
	}
	n, err := c.Read(c.in[len(c.in):cap(c.in)])
	c.in = c.in[:len(c.in)+n]
	if n > 0 {
		return nil
	}
	return err
}

// setDeadline sets a deadline that is not set yet. That costs more than it is
// worth on each request: an idle connection may end an eighth early.
func (c *directConn) setDeadline(d deadline) {
	if d == c.deadline && d == ofRequest {
		return
	}
	now := time.Now()
	if d == c.deadline && now.Sub(c.since) < directIdle/8 {
		return
	}
	c.deadline, c.since = d, now
	wait := directIdle
	if d == ofRequest {
		wait = directRequest
	}
	_ = c.SetReadDeadline(now.Add(wait))
}

// serve makes the answer, or leaves the request to net/http without having done
// anything.
func (c *directConn) serve(ctx context.Context, p *plain) bool {
	h := c.handler
	if h.machine.AuthEnabled() {
		return false // who asks is told by more than the request
	}
	form, ok := form{}, false
	if form.fields, ok = appendFields(c.fields[:0], p.form); !ok {
		return false
	}
	if form.fields, ok = appendFields(form.fields, p.query); !ok {
		return false
	}
	c.fields = form.fields
	q := &request{verb: p.verb, path: p.path}
	if len(form.fields) > 0 {
		q.read(&form)
	}
	var a reply
	switch {
	case form.wrong != nil:
		a = form.wrong.reply(c.body[:0])
	case q.waits():
		return false
	default:
		a = h.do(client{ctx: ctx}, q, c.body[:0])
	}
	c.body, c.out = a.body, a.appendHead(c.out[:0], c.common, c.dateLine(time.Now()))
	return true
}

// dateLine is the header Date.
func (c *directConn) dateLine(now time.Time) []byte {
	if second := now.Unix(); second != c.second || c.date == nil {
		c.second = second
		c.date = append(now.UTC().AppendFormat(append(c.date[:0], "Date: "...), http.TimeFormat), "\r\n"...)
	}
	return c.date
}

// send writes the answer and forgets the request, which had so many bytes.
func (c *directConn) send(bytes int) bool {
	if len(c.body) <= directBytesKept {
		c.out, c.body = append(c.out, c.body...), c.body[:0]
	}
	if _, err := c.Write(c.out); err != nil {
		return false
	}
	if len(c.body) > 0 {
		if _, err := c.Write(c.body); err != nil {
			return false
		}
	}
	c.in = c.in[:copy(c.in, c.in[bytes:])]
	if len(c.in) == 0 && cap(c.in) > directBytesKept {
		c.in = nil
	}
	if max(cap(c.out), cap(c.body)) > directBytesKept {
		c.out, c.body = nil, nil
	}
	clear(c.fields) // their texts may be large
	return true
}
