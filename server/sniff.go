package server

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// sniffTimeout bounds how long a new connection may stay silent before it must
	// say whether it speaks HTTP/1 or HTTP/2.
	sniffTimeout = 30 * time.Second
	// An HTTP/2 client that has not asked anything for so long is taken for a gRPC
	// client: these connect ahead of need.
	firstRequestTimeout = 10 * time.Second
	// What is kept of a connection while it is sniffed grows from one to the other.
	sniffBytesMin, sniffBytesMax = 1 << 10, 32 << 10

	frameHeaderBytes = 9
)

// sniffer finds out what a client speaks from what it sends first:
//
//	anything but the preface of HTTP/2          -> HTTP/1
//	preface, SETTINGS …, HEADERS (content-type) -> gRPC or HTTP/2
//	preface, SETTINGS …, anything else, silence -> gRPC
//
// A gRPC client may wait for the server's SETTINGS before it sends HEADERS, so
// they are sent when the client pauses. Who serves the connection later sends
// SETTINGS of its own, which HTTP/2 allows; the acknowledgement of ours must not
// reach net/http, which would take it for an error.
type sniffer struct {
	conn       net.Conn
	streamsMax uint32
	head       []byte // what has been read
	at         int    // in head: the frame to look at
	greeted    bool   // our SETTINGS have been sent
	acked      bool   // and acknowledged
}

// side reads until it knows who serves the connection.
func (f *sniffer) side() (grpc bool, err error) {
	_ = f.conn.SetReadDeadline(time.Now().Add(sniffTimeout))
	f.head = make([]byte, 0, sniffBytesMin)
	for len(f.head) < len(http2.ClientPreface) {
		if err := f.more(); err != nil {
			return false, err
		}
		n := min(len(f.head), len(http2.ClientPreface))
		if string(f.head[:n]) != http2.ClientPreface[:n] {
			return false, nil
		}
	}
	f.at = len(http2.ClientPreface)
	_ = f.conn.SetReadDeadline(time.Now().Add(firstRequestTimeout))
	grpc, err = f.firstRequest()
	_ = f.conn.SetReadDeadline(time.Time{})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return true, nil
	}
	return grpc, err
}

// firstRequest looks at frames until one tells.
func (f *sniffer) firstRequest() (grpc bool, err error) {
	for {
		h, payload, whole := f.frame()
		switch {
		case len(f.head) >= sniffBytesMax || h.Length > sniffBytesMax:
			return true, nil
		case !whole:
			if !f.greeted && f.at > len(http2.ClientPreface) {
				if err := f.greet(); err != nil {
					return false, err
				}
			}
			if err := f.more(); err != nil {
				return false, err
			}
			continue
		case h.Type == http2.FrameHeaders:
			return isGRPC(h, payload), nil
		case h.Type == http2.FrameSettings && h.Flags.Has(http2.FlagSettingsAck) && f.greeted && !f.acked:
			f.acked = true
			f.head = append(f.head[:f.at], f.head[f.at+frameHeaderBytes:]...) // of ours: nobody else is to see it
			continue
		case h.Type != http2.FrameSettings && h.Type != http2.FrameWindowUpdate && h.Type != http2.FramePriority:
			return true, nil
		}
		f.at += frameHeaderBytes + len(payload)
	}
}

// frame is the frame at f.at, as far as it has been read.
func (f *sniffer) frame() (h http2.FrameHeader, payload []byte, whole bool) {
	rest := f.head[f.at:]
	if len(rest) < frameHeaderBytes {
		return h, nil, false
	}
	h = parseFrameHeader(rest)
	rest = rest[frameHeaderBytes:]
	if len(rest) < int(h.Length) {
		return h, nil, false
	}
	return h, rest[:h.Length], true
}

func parseFrameHeader(b []byte) http2.FrameHeader {
	return http2.FrameHeader{
		Length: binary.BigEndian.Uint32(b) >> 8, Type: http2.FrameType(b[3]), Flags: http2.Flags(b[4]),
		StreamID: binary.BigEndian.Uint32(b[5:]) & math.MaxInt32,
	}
}

// more reads what there is, at least a byte.
func (f *sniffer) more() error {
	if len(f.head) == cap(f.head) {
		f.head = append(make([]byte, 0, min(2*cap(f.head), sniffBytesMax)), f.head...)
	}
	n, err := f.conn.Read(f.head[len(f.head):cap(f.head)])
	f.head = f.head[:len(f.head)+n]
	if n > 0 {
		return nil
	}
	return err
}

// greet sends the server's SETTINGS.
func (f *sniffer) greet() error {
	var b bytes.Buffer
	var settings []http2.Setting
	if f.streamsMax < math.MaxUint32 {
		settings = []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: f.streamsMax}}
	}
	_ = http2.NewFramer(&b, nil).WriteSettings(settings...) // to memory
	f.greeted = true
	_ = f.conn.SetWriteDeadline(time.Now().Add(firstRequestTimeout))
	_, err := f.conn.Write(b.Bytes())
	_ = f.conn.SetWriteDeadline(time.Time{})
	return err
}

// isGRPC tells by the header of a request. One that goes on in further frames is
// left to the gRPC server, and to its bounds.
func isGRPC(h http2.FrameHeader, payload []byte) bool {
	found, grpc := false, false
	d := hpack.NewDecoder(4<<10, func(field hpack.HeaderField) {
		if field.Name == "content-type" {
			found, grpc = true, strings.HasPrefix(field.Value, "application/grpc")
		}
	})
	padding := 0
	if h.Flags.Has(http2.FlagHeadersPadded) && len(payload) > 0 {
		padding, payload = int(payload[0]), payload[1:]
	}
	if h.Flags.Has(http2.FlagHeadersPriority) {
		payload = payload[min(5, len(payload)):]
	}
	if padding > len(payload) {
		return true
	}
	_, err := d.Write(payload[:len(payload)-padding])
	if found {
		return grpc
	}
	return err != nil || !h.Flags.Has(http2.FlagHeadersEndHeaders)
}

// replay is the connection as if nobody had read from it.
func (f *sniffer) replay(grpc bool) net.Conn {
	c := &peekedConn{Conn: f.conn, head: f.head}
	if f.greeted && !f.acked && !grpc {
		return &ackedConn{Conn: c}
	}
	return c
}

// peekedConn gives back the bytes that were looked at, then reads from the
// connection itself.
type peekedConn struct {
	net.Conn
	head []byte
}

func (c *peekedConn) Read(p []byte) (int, error) {
	if c.head == nil {
		return c.Conn.Read(p)
	}
	n := copy(p, c.head)
	if c.head = c.head[n:]; len(c.head) == 0 {
		c.head = nil
	}
	return n, nil
}

// ackedConn is an HTTP/2 connection from which one acknowledgement of SETTINGS
// is left out, the first.
type ackedConn struct {
	net.Conn
	prefaced, dropped bool
	header            []byte // of a frame: bytes to give on
	payload           int    // bytes to give on after them
}

func (c *ackedConn) Read(p []byte) (int, error) {
	if len(c.header) == 0 && c.payload == 0 && !c.dropped {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	if len(c.header) > 0 {
		n := copy(p, c.header)
		c.header = c.header[n:]
		return n, nil
	}
	if c.payload > 0 {
		n, err := c.Conn.Read(p[:min(len(p), c.payload)])
		c.payload -= n
		return n, err
	}
	return c.Conn.Read(p)
}

// next reads the header of the next frame, and leaves out the one.
func (c *ackedConn) next() error {
	if !c.prefaced {
		c.prefaced, c.payload = true, len(http2.ClientPreface)
		return nil
	}
	header := make([]byte, frameHeaderBytes)
	if _, err := io.ReadFull(c.Conn, header); err != nil {
		return err
	}
	h := parseFrameHeader(header)
	if h.Type == http2.FrameSettings && h.Flags.Has(http2.FlagSettingsAck) {
		c.dropped = true // it has no payload
		return nil
	}
	c.header, c.payload = header, int(h.Length)
	return nil
}
