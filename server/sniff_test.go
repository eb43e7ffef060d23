package server

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// If this fails, curl --http2-prior-knowledge and its like get no answer in the
// clear.
func TestHTTP2InTheClear(t *testing.T) {
	m := startMember(t, nil)
	m.served()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for _, c := range []struct{ path, body, want string }{
		{"/v3/kv/put", `{"key":"YQ==","value":"Yg=="}`, `"revision":"2"`},
		{"/v3/kv/range", `{"key":"YQ=="}`, `"value":"Yg=="`},
	} {
		answer, err := client.Post(m.url(c.path), "application/json", strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		got := text(t, answer)
		_ = answer.Body.Close()
		if answer.ProtoMajor != 2 || !strings.Contains(got, c.want) {
			t.Errorf("%s %s: %s", answer.Proto, answer.Status, got)
		}
	}
}

// If this fails, a client of one kind is served as one of the other, or dropped
// for the SETTINGS that it was sent while it was sniffed.
func TestSniffedConnections(t *testing.T) {
	m := startMember(t, nil)
	m.served()
	for _, contentType := range []string{"application/grpc", "application/json"} {
		for _, order := range []string{"at once", "after SETTINGS", "SETTINGS acknowledged later"} {
			t.Run(contentType+" "+order, func(t *testing.T) {
				m.rawRequest(t, contentType, order)
			})
		}
	}
}

// rawRequest asks for /health, and again on the same connection; over gRPC it is
// an unknown method. Both answers must come.
func (m *testMember) rawRequest(t *testing.T, contentType, order string) {
	conn, err := (&net.Dialer{}).DialContext(m.ctx, "tcp", m.clientListeners[0].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(testWait))
	f := http2.NewFramer(conn, conn)
	mustDo := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err = io.WriteString(conn, http2.ClientPreface)
	mustDo(err)
	mustDo(f.WriteSettings())
	if order != "at once" {
		frame, err := f.ReadFrame()
		mustDo(err)
		if s, ok := frame.(*http2.SettingsFrame); !ok || s.IsAck() {
			t.Fatalf("first the server sends %v", frame)
		}
		if order == "after SETTINGS" {
			mustDo(f.WriteSettingsAck())
		}
	}
	for id := uint32(1); id <= 3; id += 2 {
		var b bytes.Buffer
		e := hpack.NewEncoder(&b)
		for _, h := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":path", "/health"}, {":authority", "x"}, {"content-type", contentType}} {
			_ = e.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
		}
		mustDo(f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: true, BlockFragment: b.Bytes()}))
		if order == "SETTINGS acknowledged later" && id == 1 {
			mustDo(f.WriteSettingsAck())
		}
		for {
			frame, err := f.ReadFrame()
			mustDo(err)
			if s, ok := frame.(*http2.SettingsFrame); ok && !s.IsAck() {
				mustDo(f.WriteSettingsAck())
			}
			if frame.Header().StreamID == id && frame.Header().Flags.Has(http2.FlagHeadersEndStream) {
				break
			}
			if g, ok := frame.(*http2.GoAwayFrame); ok {
				t.Fatalf("the server hung up: %v %s", g, g.DebugData())
			}
		}
	}
}

// If this fails, a gRPC client that connects ahead of need is not ready, or loses
// its connection while it is idle.
func TestIdleGRPCClientIsReady(t *testing.T) {
	m := startMember(t, nil)
	m.served()
	conn, err := grpc.NewClient(m.clientListeners[0].Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	conn.Connect()
	ctx, cancel := context.WithTimeout(m.ctx, testWait)
	defer cancel()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		if !conn.WaitForStateChange(ctx, state) {
			t.Fatalf("the connection is %v", state)
		}
	}
	if _, err := pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{}); err != nil {
		t.Error(err)
	}
}

// FuzzSniff: whatever a client sends, sniffing it ends and nothing is lost.
func FuzzSniff(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte(http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x01\x01\x0c\x00\x00\x00\x01\xff"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		client, server := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, client) }()
		go func() {
			_, _ = client.Write(sent)
			_ = client.Close()
		}()
		s := &sniffer{conn: server}
		grpc, err := s.side()
		if err != nil {
			return
		}
		got, _ := io.ReadAll(s.replay(grpc))
		if !s.greeted && !bytes.HasPrefix(sent, got) {
			t.Errorf("of %q is left %q", sent, got)
		}
	})
}

// If this fails, a second server cannot take over a port with
// --socket-reuse-port, or two take it by mistake.
func TestSharedPort(t *testing.T) {
	for _, share := range []bool{true, false} {
		cfg := DefaultConfig()
		cfg.ReusePort = share
		first, err := cfg.listen(t.Context(), mustURLs("http://127.0.0.1:0")[0])
		if err != nil {
			t.Fatal(err)
		}
		second, err := cfg.listen(t.Context(), mustURLs("http://" + first.Addr().String())[0])
		if (err == nil) != share {
			t.Errorf("share %t: %v", share, err)
		}
		if err == nil {
			_ = second.Close()
		}
		_ = first.Close()
	}
}
