package server

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/status"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// eventually polls until ok or the end of the test's patience.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(testWait)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("never: %s", what)
		}
	}
}

// unread opens a connection that asks for all keys and does not read.
func (m *testMember) unread(t *testing.T, grpc bool) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(m.ctx, "tcp", m.clientListeners[0].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if !grpc {
		const request = `{"key":"Yg==","range_end":"Yw=="}`
		_, err = fmt.Fprintf(conn, "POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(request), request)
	} else {
		err = askGRPC(conn)
	}
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func askGRPC(conn net.Conn) error {
	message, err := (&pb.RangeRequest{Key: []byte("b"), RangeEnd: []byte("c")}).MarshalVT()
	if err != nil {
		return err
	}
	var header, all bytes.Buffer
	e := hpack.NewEncoder(&header)
	for _, h := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", pb.KV_Range_FullMethodName}, {":authority", "x"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
		_ = e.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	all.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&all, nil)
	_ = f.WriteSettings()
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: header.Bytes()})
	_ = f.WriteData(1, true, append([]byte{0, 0, 0, 0, byte(len(message))}, message...))
	_, err = io.Copy(conn, &all)
	return err
}

// If this fails, clients that ask for much and never read take all memory; or
// what they were given is counted for ever, and nobody is given anything.
func TestUnreadAnswersAreBounded(t *testing.T) {
	m := startMember(t, func(c *Config) { c.UnsentAnswerBytesMax = 5 << 20 })
	kv := pb.NewKVClient(m.conn)
	for i := range 6 {
		must[*pb.PutResponse](t)(kv.Put(m.ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "b%d", i), Value: bytes.Repeat([]byte("v"), 1<<20)}))
	}
	for _, grpc := range []bool{true, false} {
		conn := m.unread(t, grpc)
		eventually(t, "the answer waits", func() bool { return m.unsent.Held() > 5<<20 })
		_, err := kv.Range(m.ctx, &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z")})
		if status.Convert(err).Message() != "etcdserver: too many requests" {
			t.Errorf("one more range: %v", err)
		}
		if _, err := kv.Range(m.ctx, &pb.RangeRequest{Key: []byte("b1")}); err != nil {
			t.Errorf("a single key: %v", err)
		}
		_ = conn.Close()
		eventually(t, "ranges are read again", func() bool {
			answer, err := kv.Range(m.ctx, &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z"), KeysOnly: true})
			return err == nil && answer.Count == 6
		})
	}
}

// If this fails, a client that is idle is thrown out for its pings, or one that
// floods is not.
func TestPingsTooOften(t *testing.T) {
	m := startMember(t, func(c *Config) { c.MaxConcurrentStreams = 77 })
	m.served()
	conn, err := (&net.Dialer{}).DialContext(m.ctx, "tcp", m.clientListeners[0].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(testWait))
	if err := askGRPC(conn); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(conn, conn)
	for range 10 {
		if err := f.WritePing(false, [8]byte{}); err != nil {
			t.Fatal(err)
		}
	}
	streams := uint32(0)
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatalf("no GOAWAY, but %v", err)
		}
		switch x := frame.(type) {
		case *http2.SettingsFrame:
			if v, ok := x.Value(http2.SettingMaxConcurrentStreams); ok {
				streams = v
			}
		case *http2.GoAwayFrame:
			if x.ErrCode != http2.ErrCodeEnhanceYourCalm || !strings.Contains(string(x.DebugData()), "too_many_pings") || streams != 77 {
				t.Errorf("%v %s, %d streams, want ENHANCE_YOUR_CALM too_many_pings and 77", x.ErrCode, x.DebugData(), streams)
			}
			return
		}
	}
}
